"""A night's run in Airflow 3: the same command as anywhere, one at a time. Copy it to the folder of DAGs."""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "dicomveil_nightly",
    schedule="30 1 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
):
    BashOperator(
        task_id="run",
        # 3: it has ended well, and some instances are set aside.
        bash_command="dicomveil run /etc/dicomveil/nightly.yaml || [ $? -eq 3 ]",
        append_env=True,
        retries=3,
        retry_delay=timedelta(minutes=10),
    )
