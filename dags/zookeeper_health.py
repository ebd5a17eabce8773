"""The Airflow DAG `zookeeper_health`: every check of the ensemble in which flowkeeper lives is a task."""

from flowkeeper_health import zookeeper_health_dag

dag = zookeeper_health_dag("home", dag_id="zookeeper_health")
