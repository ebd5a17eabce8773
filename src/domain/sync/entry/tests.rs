//! Which values become entries of Airflow, and what is wrong with the others.

use serde_json::json;

use super::*;

fn read(kind: EntryKind, given: Value) -> Result<EntryValue, String> {
    EntryValue::read(kind, given)
}

fn connection_of(given: Value) -> Connection {
    match read(EntryKind::Connections, given).expect("a connection") {
        EntryValue::Connection(connection) => *connection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_variable_is_a_text_and_all_else_becomes_json() {
    for (given, text) in [(json!("a\n"), "a\n"), (json!(1.5), "1.5"), (json!({"b": [true]}), r#"{"b":[true]}"#)] {
        assert!(read(EntryKind::Variables, given).expect("a variable") == EntryValue::Variable(text.to_owned()));
    }
    assert!(read(EntryKind::Variables, json!("a\0b")).expect_err("PostgreSQL has no NUL").contains("U+0000"));
}

#[test]
fn a_pool_is_a_number_or_an_object() {
    let pool = |slots, description: Option<&str>, include_deferred| {
        EntryValue::Pool(Pool { slots, description: description.map(str::to_owned), include_deferred })
    };
    for (given, expected) in [
        (json!("8"), pool(8, None, false)),
        (json!(" 8\n"), pool(8, None, false)),
        (json!(-1), pool(-1, None, false)),
        (json!(r#"{"slots": 3, "description": "d", "include_deferred": true}"#), pool(3, Some("d"), true)),
        (json!({"slots": 0, "description": ""}), pool(0, None, false)),
    ] {
        assert!(read(EntryKind::Pools, given.clone()).expect("a pool") == expected, "{given}");
    }
    for (given, word) in [
        (json!("many"), "number of slots"),
        (json!(-2), "whole number"),
        (json!(1.5), "whole number"),
        (json!(3_000_000_000_i64), "whole number"),
        (json!({}), "`slots` is missing"),
        (json!({"slots": 1, "include_deferred": "yes"}), "true or false"),
        (json!({"slots": 1, "deferred": true}), "not known"),
        (json!([1]), "number of slots"),
    ] {
        let fault = read(EntryKind::Pools, given.clone()).expect_err("no pool");
        assert!(fault.contains(word), "{given}: {fault}");
    }
}

#[test]
fn a_connection_is_a_uri_or_an_object() {
    let expected = Connection {
        conn_type: "postgres".to_owned(),
        host: Some("db.example".to_owned()),
        login: Some("etl".to_owned()),
        password: Some("p@ss/1".to_owned()),
        schema: Some("dwh".to_owned()),
        port: Some(5432),
        extra: json!({"sslmode": "require", "a b": "c"}).as_object().cloned(),
        ..Connection::default()
    };
    let uri = "postgresql://etl:p%40ss%2F1@db.example:5432/dwh?sslmode=require&a+b=c";
    assert!(connection_of(json!(uri)) == expected);
    let object = json!({"conn_type": "postgres", "host": "db.example", "login": "etl", "password": "p@ss/1",
        "schema": "dwh", "port": "5432", "extra": "{\"sslmode\": \"require\", \"a b\": \"c\"}"});
    assert!(connection_of(object.clone()) == expected);
    assert!(connection_of(json!(object.to_string())) == expected);

    let aws = connection_of(json!("google-cloud-platform://?__extra__=%7B%22project%22%3A%20%22x%22%7D"));
    assert_eq!(aws.conn_type, "google_cloud_platform");
    assert_eq!(aws.extra, json!({"project": "x"}).as_object().cloned());
    assert!(aws.host.is_none() && aws.login.is_none() && aws.port.is_none());
    let six = connection_of(json!("http://[::1]:8080"));
    assert_eq!((six.host.as_deref(), six.port), (Some("[::1]"), Some(8080)));
    let two = connection_of(json!("http://https://u:p%3A%2F@api.example:443/v1?k=https://x"));
    assert_eq!((two.conn_type.as_str(), two.host.as_deref()), ("http", Some("https://api.example")));
    assert_eq!((two.password.as_deref(), two.schema.as_deref(), two.port), (Some("p:/"), Some("v1"), Some(443)));
}

#[test]
fn what_is_wrong_with_a_connection_is_told_without_its_secrets() {
    for (given, word) in [
        (json!("s3cret"), "URI"),
        (json!("http:s3cret"), "URI"),
        (json!("http://s3cret@h:port"), "`port`"),
        (json!("http://u:s3cret%ff@h"), "UTF-8"),
        (json!("{\"conn_type\": \"http\", \"password\": s3cret}"), "JSON object"),
        (json!({"password": "s3cret"}), "`conn_type` is missing"),
        (json!({"conn_type": "http", "s3cret": 1}), "not known"),
        (json!({"conn_type": "http", "password": ["s3cret"]}), "`password` is a text"),
        (json!({"conn_type": "http", "extra": "s3cret"}), "`extra`"),
        (json!({"conn_type": "http", "extra": [1]}), "`extra`"),
        (json!({"conn_type": "http", "port": 70000}), "`port`"),
        (json!({"conn_type": "http", "password": "***"}), "three stars"),
        (json!({"conn_type": "http", "extra": {"a": [{"token": "***"}], "b": "s3cret"}}), "three stars"),
        (json!({"conn_type": "http", "host": "s3cret".repeat(100)}), "more than 500"),
        (json!({"conn_type": "http", "login": "s3cret\0"}), "U+0000"),
        (json!({"conn_type": "http", "description": "s3cret ".repeat(1000)}), "more than 4000"),
        (json!(1), "URI"),
    ] {
        let fault = read(EntryKind::Connections, given.clone()).expect_err("no connection");
        assert!(fault.contains(word), "{given}: {fault}");
        assert!(!fault.contains("s3cret"), "{fault}");
    }
    let value = read(EntryKind::Connections, json!("http://u:s3cret@h")).expect("a connection");
    assert!(!format!("{value:?}").contains("s3cret"));
}

#[test]
fn keys_that_airflow_would_refuse_are_faults() {
    use EntryKind::{Connections, Pools, Variables};
    let long = |count: usize| "ä".repeat(count);
    for (kind, key, good) in [
        (Variables, "a b/ü".to_owned(), true),
        (Variables, long(250), true),
        (Variables, long(251), false),
        (Variables, String::new(), false),
        (Variables, "..".to_owned(), false),
        (Variables, "a\tb".to_owned(), false),
        (Pools, long(256), true),
        (Pools, long(257), false),
        (Pools, "default_pool".to_owned(), false),
        (Connections, "a_b.c-ü".to_owned(), true),
        (Connections, "a b".to_owned(), false),
        (Connections, "a/b".to_owned(), false),
        (Connections, "a".repeat(201), false),
    ] {
        assert_eq!(kind.key_fault(&key).is_none(), good, "{kind:?} {key:?}");
    }
}
