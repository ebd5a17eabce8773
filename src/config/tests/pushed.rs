//! Definitions that were pushed as documents, beside the sections of the main file.

use std::fmt::Write as _;
use std::path::Path;

use super::{AIRFLOW, BOTH};
use crate::config::{Config, Document, Environment, Fault, Faults, check, check_definitions, read, render};

const MAIN: &str = "[server]\ndefinitions = \"zookeeper\"\n[zookeeper]\nconnect = \"127.0.0.1:2181\"\n\
                    auth = { scheme = \"digest\", credential = { env = \"AIRFLOW_ZK\" } }\n";
const CRON: &str = "[[schedule]]\nname = \"a\"\ncron = \"30 2 * * *\"\ndag = \"d\"\n";

fn checked(directory: &Path, main: &str, documents: &[(&str, &str)]) -> Result<(Config, Vec<Fault>), Faults> {
    let file = directory.join("flowkeeper.toml");
    std::fs::write(&file, main).unwrap();
    let document = |(name, text): &(&str, &str)| Document { name: (*name).into(), text: (*text).into() };
    let documents: Vec<_> = documents.iter().map(document).collect();
    check_definitions(&file, &documents, &Environment::default())
}

#[test]
fn a_set_is_made_of_the_main_file_and_the_documents() {
    let directory = tempfile::tempdir().unwrap();
    let first = format!(
        "include = [\"schedules/*.toml\", \"more.toml\"]\n[defaults]\nowner = \"team\"\n{AIRFLOW}auth = {{ token = {{ file = \"token\" }} }}\n{CRON}"
    );
    let second = CRON.replace("\"a\"", "\"b\"");
    let documents = [("d.toml", first.as_str()), ("schedules/b.toml", &second), ("more.toml", "")];
    let (config, warnings) = checked(directory.path(), MAIN, &documents).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(warnings, []);
    assert_eq!(config.schedules.iter().map(|schedule| schedule.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(config.zookeeper.is_some());
    // The defaults of the first document hold for all.
    assert_eq!(config.schedules[1].owner.as_deref(), Some("team"));
    // Paths are relative to the main file.
    let airflow = format!("{:?}", config.airflows["main"].auth);
    assert!(airflow.contains(&directory.path().join("token").display().to_string()), "{airflow}");

    // The same definitions in files are the same version, whatever else is in the main file.
    let file = directory.path().join("flowkeeper.toml");
    std::fs::create_dir(directory.path().join("schedules")).unwrap();
    std::fs::write(directory.path().join("schedules/b.toml"), &second).unwrap();
    std::fs::write(directory.path().join("more.toml"), "").unwrap();
    for listen in [1, 2] {
        std::fs::write(&file, format!("{first}[server]\nlisten = \"127.0.0.1:{listen}\"\n")).unwrap();
        assert_eq!(check(&file, &Environment::default()).unwrap().0.version, config.version);
    }
}

#[test]
fn the_main_file_alone_has_no_definitions() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flowkeeper.toml");
    std::fs::write(&file, MAIN).unwrap();
    let (config, warnings) = check(&file, &Environment::default()).unwrap();
    assert!(config.schedules.is_empty() && config.airflows.is_empty() && warnings.is_empty());
}

#[test]
fn the_main_file_says_what_a_set_may_have_a_member_do() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[airflow.main]\nurl = \"http://a\"\nauth = { command = [\"login\", \"now\"] }\n\
                headers = { X-Key = { env = \"TEAM_KEY\" } }\ntls = { ca = \"/etc/ssl/ca.pem\" }\n";
    let pushed = "pushed = { commands = [[\"login\", \"now\"]], env = [\"TEAM_*\"], files = [\"/etc/ssl/*.pem\"] }\n";
    let wide = MAIN.replace("[zookeeper]", &format!("{pushed}[zookeeper]"));
    let faults = checked(directory.path(), MAIN, &[("d.toml", text)]).unwrap_err().faults;
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["airflow.main.auth.command", "airflow.main.headers.X-Key", "airflow.main.tls.ca"]);
    assert!(checked(directory.path(), &wide, &[("d.toml", text)]).is_ok());
    // Files of the member's own may name what they like.
    let file = directory.path().join("flowkeeper.toml");
    std::fs::write(&file, text).unwrap();
    assert!(check(&file, &Environment::default()).is_ok());
}

#[test]
fn definitions_that_everybody_can_write_are_warned_of_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flowkeeper.toml");
    let open = "[server]\ndefinitions = \"zookeeper\"\n[zookeeper]\nconnect = \"127.0.0.1:2181\"\n";
    let with = |more: &str| format!("{open}{more}\n");
    for (main, warned) in [
        (with(""), true),
        (with("tls = { ca = \"ca.pem\" }"), true),
        (with("tls = { ca = \"ca.pem\", cert = \"c.pem\", key = \"k.pem\" }"), false),
        (with("auth = { credential = { env = \"Z\" } }"), false),
        (with("sasl = { username = \"u\", password = { env = \"Z\" } }"), false),
        (with("").replace("\"zookeeper\"", "\"file\""), false),
    ] {
        std::fs::write(&file, &main).unwrap();
        let (_, warnings) = check(&file, &Environment::default()).unwrap();
        let told: Vec<_> = warnings.iter().map(|fault| (fault.key.as_str(), fault.line)).collect();
        assert_eq!(told, if warned { vec![("zookeeper", 3)] } else { vec![] }, "{main}: {warnings:?}");
        if warned {
            let (_, of_the_set) = checked(directory.path(), &main, &[("d.toml", AIRFLOW)]).unwrap();
            assert_eq!(of_the_set, [], "a set is no place for it");
        }
    }
}

#[test]
fn the_text_of_files_is_kept_without_what_may_be_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flowkeeper.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:1\"\n{AIRFLOW}headers = {{ X-A = \"hunter2\", X-B = {{ env = \"B\" }} }}\n\
         [airflow.b]\nurl = \"http://b\"\nauth = {{ command = [\"login\", \"hunter2\"] }}\n[airflow.b.headers]\nX-C = \"hunter2\"\n"
    );
    std::fs::write(&file, &text).unwrap();
    let documents = read(&file, &Environment::default()).unwrap().documents;
    assert_eq!(documents.len(), 1);
    let kept = &documents[0].text;
    assert_eq!(
        kept,
        &format!(
            "{AIRFLOW}headers = {{ X-A = \"…\", X-B = {{ env = \"B\" }} }}\n\
             [airflow.b]\nurl = \"http://b\"\nauth = {{ command = [\"login\", \"…\"] }}\n[airflow.b.headers]\nX-C = \"…\"\n"
        )
    );
    // Another secret is another version, although the text that is kept is the same.
    let version = || check(&file, &Environment::default()).unwrap().0.version;
    let before = version();
    std::fs::write(&file, text.replace("hunter2", "hunter3")).unwrap();
    assert_ne!(version(), before);
}

#[test]
fn every_wrong_set_is_told_well() {
    type Documents<'a> = &'a [(&'a str, &'a str)];
    let table: &[(&str, &str, Documents<'_>)] = &[
        (
            "definitions in the main file as well",
            &format!("include = [\"x.toml\"]\n{MAIN}{AIRFLOW}{CRON}[defaults]\nowner = \"x\"\n"),
            &[],
        ),
        (
            "definitions in ZooKeeper without an ensemble",
            "[server]\ndefinitions = \"zookeeper\"\n",
            &[("d.toml", AIRFLOW)],
        ),
        ("sections of the main file", MAIN, &[("d.toml", BOTH), ("e.toml", "[server]\nlisten = \"127.0.0.1:1\"\n")]),
        (
            "a fault in the second document",
            MAIN,
            &[("d.toml", AIRFLOW), ("s/e.toml", "\n[[schedule]]\nname = \"a\"\ncron = \"61 * * * *\"\ndag = \"d\"\n")],
        ),
        ("a name in two documents", MAIN, &[("d.toml", &format!("{AIRFLOW}{CRON}")), ("e.toml", CRON)]),
        (
            "documents that were not pushed",
            MAIN,
            &[("s/d.toml", "include = [\"e.toml\", \"f.toml\", \"*.toml\", \"x/*.toml\"]\n"), ("s/e.toml", "")],
        ),
        (
            "secrets",
            MAIN,
            &[(
                "d.toml",
                "[airflow.main]\nurl = \"http://a\"\nheaders = { X-Api-Key = \"hunter2\", X-Region = \"eu\" }\n",
            )],
        ),
        (
            "what a member does for nobody who pushes",
            MAIN,
            &[(
                "d.toml",
                "[airflow.main]\nurl = \"http://a\"\nauth = { command = [\"sh\", \"-c\", \"hunter2\"] }\n\
                 headers = { X-Region = { env = \"FLOWKEEPER_TOKEN\" }, X-Other = { env = \"HOME\" } }\n\
                 tls = { ca = \"../ca.pem\" }\n\
                 [airflow.b]\nurl = \"http://b\"\nauth = { username = \"u\", password = { file = \"/etc/shadow\" } }\n\
                 [airflow.c]\nurl = \"http://c\"\nauth = { token = { file = \"flowkeeper.toml\" } }\n\
                 [airflow.d]\nurl = \"http://d\"\nauth = { oauth2 = { token_url = \"http://d\", client_id = \"d\", \
                 client_secret = { env = \"AIRFLOW_ZK\" } } }\n\
                 [ensemble.e]\nconnect = \"h:1\"\nauth = { credential = { env = \"ZK\" } }\n\
                 tls = { ca = \"ca.pem\", cert = \"/c.pem\", key = \"/k.pem\" }\n\
                 sasl = { username = \"u\", password = { file = \".pgpass\" } }\n",
            )],
        ),
        (
            "limits that are none",
            &MAIN.replace(
                "[zookeeper]",
                "pushed = { commands = [[], [\"\"]], env = [\"[\"], files = [\"a\", \"../b\", \"{\"], more = 1 }\n[zookeeper]",
            ),
            &[("d.toml", AIRFLOW)],
        ),
        ("no TOML", MAIN, &[("config", "{ \"schedule\": [] }\n")]),
        ("faults of both", &format!("{MAIN}[log]\nformat = \"xml\"\n"), &[("d.toml", "[schedule]\n")]),
    ];
    let directory = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (title, main, documents) in table {
        let told = match checked(directory.path(), main, documents) {
            Ok((_, warnings)) => render::human(&warnings, render::Color::Off),
            Err(faults) => render::human(&faults.faults, render::Color::Off),
        };
        let told = told.replace(&format!("{}/", directory.path().display()), "");
        assert!(!told.contains("hunter2"), "{title}: a secret is shown\n{told}");
        writeln!(text, "──── {title}\n{told}").unwrap();
    }
    insta::assert_snapshot!("wrong_definitions", text);
}
