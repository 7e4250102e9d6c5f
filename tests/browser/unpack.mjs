// Unpacks the Chromium that its npm package carries compressed, with the libraries and the font
// that a machine may lack. No script of the package is run, and nothing else is fetched.

import { execFileSync } from "node:child_process";
import { chmodSync, createReadStream, createWriteStream, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { createBrotliDecompress } from "node:zlib";

const MODULES = join(dirname(fileURLToPath(import.meta.url)), "node_modules");
const PACKED = join(MODULES, "@sparticuz/chromium/bin");
const UNPACKED = join(MODULES, ".chromium");
const FONTS = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>${join(UNPACKED, "fonts")}</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>${join(UNPACKED, "font-cache")}</cachedir>
  <alias><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
</fontconfig>
`;

async function unpack(name, target) {
  await pipeline(
    createReadStream(join(PACKED, name)),
    createBrotliDecompress(),
    createWriteStream(target),
  );
}

async function unpackFolder(name) {
  const tar = join(UNPACKED, name.replace(/\.br$/, ""));
  await unpack(name, tar);
  execFileSync("tar", ["-xf", tar, "-C", UNPACKED]);
  rmSync(tar);
}

rmSync(UNPACKED, { recursive: true, force: true });
mkdirSync(UNPACKED, { recursive: true });
await unpack("chromium.br", join(UNPACKED, "chromium"));
chmodSync(join(UNPACKED, "chromium"), 0o755);
for (const name of ["al2023.tar.br", "swiftshader.tar.br", "fonts.tar.br"]) await unpackFolder(name);
writeFileSync(join(UNPACKED, "fonts.conf"), FONTS);
