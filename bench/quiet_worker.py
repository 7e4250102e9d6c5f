"""The product's worker without Celery's events: the other half of what Flower costs."""

from worker.app import app

app.conf.update(worker_send_task_events=False)
