"""The Airflow DAG `zookeeper_maintenance`: growth, and ephemeral znodes that belong to nobody."""

from flowkeeper_maintenance import zookeeper_maintenance_dag

dag = zookeeper_maintenance_dag("home", dag_id="zookeeper_maintenance")
