#!/bin/sh
# Lets Docker pull the image from ECR with the instance's own role; a login lasts for twelve hours.
set -eu
image=$(/opt/elasticbeanstalk/bin/get-config environment -k API_IMAGE)
registry=${image%%/*}
region=$(/opt/elasticbeanstalk/bin/get-config environment -k AWS_DEFAULT_REGION)
aws ecr get-login-password --region "$region" |
  docker login --username AWS --password-stdin "$registry"
