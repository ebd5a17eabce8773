"""Prints, as JSON, the variables, pools and connections that an Airflow keeps in SQLite under a prefix.

It reads the database itself: Airflow's API hides secrets, and writes JSON anew.
"""

import configparser
import json
import os
import pathlib
import sqlite3
import sys

from cryptography.fernet import Fernet

home, prefix = pathlib.Path(sys.argv[1]), sys.argv[2]
config = configparser.RawConfigParser(strict=False)
config.read(home / "airflow.cfg")
key = os.environ.get("AIRFLOW__CORE__FERNET_KEY", config.get("core", "fernet_key", fallback=""))
database = sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True, timeout=60)


def clear(text, is_encrypted):
    return Fernet(key).decrypt(text.encode()).decode() if text and is_encrypted else text


def rows(table, name, columns):
    query = f"SELECT {name}, {columns} FROM {table} WHERE substr({name}, 1, ?) = ?"
    return database.execute(query, (len(prefix), prefix))


variables = {
    key: {"value": clear(value, encrypted), "description": description, "is_encrypted": bool(encrypted)}
    for key, value, encrypted, description in rows("variable", "key", "val, is_encrypted, description")
}
pools = {
    name: {"slots": slots, "description": description, "include_deferred": bool(deferred)}
    for name, slots, description, deferred in rows("slot_pool", "pool", "slots, description, include_deferred")
}
columns = "conn_type, host, login, schema, port, description, password, is_encrypted, extra, is_extra_encrypted"
connections = {
    name: {
        "conn_type": conn_type,
        "host": host,
        "login": login,
        "schema": schema,
        "port": port,
        "description": description,
        "password": clear(password, password_encrypted),
        "extra": clear(extra, extra_encrypted),
        "is_encrypted": bool(password_encrypted),
    }
    for (
        name, conn_type, host, login, schema, port, description, password, password_encrypted, extra, extra_encrypted,
    ) in rows("connection", "conn_id", columns)
}
json.dump({"variables": variables, "pools": pools, "connections": connections}, sys.stdout)
