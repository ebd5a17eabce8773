//! Faults beside secrets: people write them where a place is wanted, and misspell what stands around them.

use std::path::PathBuf;

use super::*;

/// What no fault may show.
const SECRET: &str = "s3cr3t";

const AIRFLOW_BEGINS: &str = "[airflow.main]\nurl = \"http://127.0.0.1:8080\"\n";

/// Files in which something is wrong on the line with the secret, or around it.
const TABLE: &[&str] = &[
    // A secret where its place is wanted.
    "[airflow.main]\nurl = \"http://a\"\nauth = { token = \"s3cr3t\" }\n",
    "[airflow.main]\nurl = \"http://a\"\nauth = { username = \"u\", password = \"s3cr3t\" }\n",
    "[airflow.main]\nurl = \"http://a\"\nauth = { username = \"u\", password = { value = \"s3cr3t\" } }\n",
    "[airflow.main]\nurl = \"http://a\"\nauth = { username = \"u\", password = [\"s3cr3t\"] }\n",
    "[airflow.main.auth]\nusername = \"u\"\npassword = \"\"\"\ns3cr3t\"\"\"\n",
    "[store]\nurl = \"postgres://db/x\"\npassword = \"s3cr3t\"\n",
    "[zookeeper]\nconnect = \"a\"\nauth = { credential = \"u:s3cr3t\" }\n",
    "[zookeeper]\nconnect = \"a\"\nsasl = { username = \"u\", password = \"s3cr3t\" }\n",
    "[[server.token]]\nname = \"ci\"\nvalue = \"s3cr3t\"\n",
    "server = { token = [{ name = \"ci\", value = \"s3cr3t\" }] }\n",
    // A key that is not known.
    "[airflow.main]\nurl = \"http://a\"\nauth = { username = \"u\", pasword = \"s3cr3t\" }\n",
    "[airflow.main.auth]\nusername = \"u\"\npwrd = \"s3cr3t\"\n",
    "[airflow.main]\nurl = \"http://a\"\ntokn = \"s3cr3t\"\n",
    "[store]\nurl = \"postgres://db/x\"\npasswrod = \"s3cr3t\"\n",
    "[[server.token]]\nname = \"ci\"\nvaleu = \"s3cr3t\"\n",
    // Wrong TOML.
    "[airflow.main]\nurl = \"http://a\"\nauth = { token = \"s3cr3t }\n",
    "[airflow.main]\nurl = \"http://a\"\nauth = { token = s3cr3t }\n",
    "[airflow.main.auth]\ntoken = \'s3cr3t\n[log]\nlevel = \"info\"\n",
    "[airflow.main.auth]\ntoken = \"s3cr3t\\q\"\n",
    "[airflow.main.auth]\ntoken = \"x\"\ntoken = \"s3cr3t\"\n",
    "[airflow.main.headers]\n\"X-Proxy\" = \"s3cr3t\\q\"\n",
    "[airflow.main.headers]\n\"X-Proxy\" = s3cr3t\n",
    "[airflow.main.auth]\ncommand = [\n  \"print-it\",\n  \"s3cr3t\\q\",\n]\n",
    "[airflow.main.auth]\ncommand = [\n  \"print-it\",\n  s3cr3t,\n]\n",
    "[[server.token]]\nname = \"ci\"\nvalue = s3cr3t\n",
    // A header, which may hold one.
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.headers]\n\"X-Proxy\" = \"s3cr3t é\"\n",
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.headers]\n\"X Proxy\" = \"s3cr3t\"\n",
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.headers]\n\"X-Proxy\" = [\"s3cr3t\"]\n",
    "[airflow.main]\nurl = \"http://a\"\nheaders = { X = { text = \"s3cr3t\" } }\n",
    "[airflow.main]\nurl = \"http://a\"\nheaders = \"X: s3cr3t\"\n",
    // A program and its arguments.
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.auth]\ncommand = \"print-it s3cr3t\"\n",
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.auth]\ncommand = [\"\", \"s3cr3t\"]\n",
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.auth]\ncommand = [\"print-it\", [\"s3cr3t\"]]\n",
    "[airflow.main]\nurl = \"http://a\"\n[airflow.main.auth]\ncommand = [\"print-it\", \"s3cr3t\"]\nttl = \"1\"\n",
    // An address.
    "[airflow.main]\nurl = \"http://me:s3cr3t@a\"\n",
    "[airflow.main]\nurl = \"me:s3cr3t@a:8080\"\n",
    "[airflow.main]\nurl = \"ftp://me:s3cr3t@a\"\n",
    "[airflow.main]\nurl = \"http://me:s3cr3t@a:port\"\n",
    "[store]\nurl = \"mysql://me:s3cr3t@db/x\"\n",
    "[store]\nurl = \"postgres://me:s3cr3t@db/x\"\npassword = { env = \"P\" }\n",
    "[store]\nurl = \"postgres://me:s3/cr3t:s3cr3t@db/x\"\n",
    "[store]\nurl = \"postgres://me@db/x?password=s3cr3t\"\n",
    "[store]\nurl = \"postgres:me:s3cr3t@db/x\"\n",
    "[zookeeper]\nconnect = \"me:s3cr3t@a:2181\"\n",
    "[zookeeper]\nconnect = \"me:x,s3cr3t@a:2181/b\"\n",
    "[zookeeper]\nconnect = \"zookeeper://me:s3cr3t@a:2181\"\n",
    "[ensemble.a]\nconnect = \"b\"\nadmin = \"http://me:s3cr3t@{host}:8080/commands\"\n",
    // A value that a template makes.
    "[zookeeper]\nconnect = \"a\"\n[[sync]]\nname = \"s\"\nznode = { path = \"/a\" }\nto = \"variables\"\nvalue = \"s3cr3t {{ valu }}\"\n",
    "[zookeeper]\nconnect = \"a\"\n[[sync]]\nname = \"s\"\nznode = { path = \"/a\" }\nto = \"variables\"\nvalue = \"s3cr3t {{\"\n",
];

/// Everything that can be told of faults.
fn told_in_every_way(faults: &[Fault]) -> String {
    let human = [render::Color::Off, render::Color::On].map(|color| render::human(faults, color)).concat();
    format!("{human}{}{}{faults:?}", render::json(faults), render::github(faults))
}

#[test]
fn no_fault_shows_a_secret() {
    for text in TABLE {
        assert!(text.contains(SECRET), "{text}");
        let (result, _) = check_files(&[("flowkeeper.toml", text.as_bytes())], &[]);
        let faults = result.expect_err(text);
        let told = told_in_every_way(&faults.faults);
        assert!(!told.contains(SECRET), "{text}\n{told}");
    }
}

#[test]
fn no_fault_of_a_pushed_set_shows_a_secret() {
    let main = "[server]\ndefinitions = \"zookeeper\"\n[zookeeper]\nconnect = \"127.0.0.1:1\"\n";
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("flowkeeper.toml");
    std::fs::write(&file, main).unwrap();
    let literal = "[airflow.main]\nurl = \"http://a\"\nheaders = { \"X-Api-Key\" = \"s3cr3t\" }\n";
    let command = "[airflow.main]\nurl = \"http://a\"\nauth = { command = [\"print-it\", \"s3cr3t\"] }\n";
    for text in TABLE.iter().chain(&[literal, command]) {
        let documents = [Document { name: "d.toml".to_owned(), text: (*text).to_owned() }];
        let faults = check_definitions(&file, &documents, &Environment::default()).expect_err(text);
        let told = told_in_every_way(&faults.faults);
        assert!(!told.contains(SECRET), "{text}\n{told}");
    }
}

#[test]
fn no_fault_shows_the_value_of_a_variable() {
    for (variable, value) in [
        ("FLOWKEEPER_STORE__URL", "mysql://me:s3cr3t@db"),
        ("FLOWKEEPER_STORE__PASSWORD", "s3cr3t"),
        ("FLOWKEEPER_AIRFLOW__MAIN__AUTH", "s3cr3t"),
        ("FLOWKEEPER_AIRFLOW__MAIN__AUTH__TOKEN", "s3cr3t"),
        ("FLOWKEEPER_AIRFLOW__MAIN__AUTH__PASSWORD", "{ value = \"s3cr3t\" }"),
        ("FLOWKEEPER_AIRFLOW__MAIN__HEADERS", "[\"s3cr3t\"]"),
        ("FLOWKEEPER_ZOOKEEPER__CONNECT", "me:s3cr3t@a:2181"),
    ] {
        let files: &[(&str, &[u8])] = &[("flowkeeper.toml", AIRFLOW_BEGINS.as_bytes())];
        let faults = check_files(files, &[(variable, value)]).0.expect_err(variable);
        let told = told_in_every_way(&faults.faults);
        assert!(!told.contains(SECRET), "{variable}={value}\n{told}");
    }
}

#[test]
fn a_configuration_is_printed_without_what_may_be_secret() {
    let config = accepted(
        "[store]\nurl = \"postgres://me:s3cr3t@db/x\"\n[zookeeper]\nconnect = \"a\"\n\
         [airflow.main]\nurl = \"http://a\"\nheaders = { X = \"s3cr3t\" }\n\
         auth = { command = [\"print-it\", \"s3cr3t\"] }\n\
         [[sync]]\nname = \"s\"\nznode = { path = \"/a\" }\nto = \"variables\"\nvalue = \"s3cr3t {{ value }}\"\n",
    );
    let printed = format!("{config:?} {config:#?}");
    assert!(printed.contains("print-it") && !printed.contains(SECRET), "{printed}");
}
