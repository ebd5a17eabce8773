//! What right files become.

use std::time::Duration;

use super::{AIRFLOW, BOTH, accepted, check_files};
use crate::config::model::{AirflowAuth, HeaderText, InFlight, Role};
use crate::config::{Environment, SecretRef, render};
use crate::domain::ensemble::EnsembleEvent;
use crate::domain::schedule::{
    Catchup, Consume, DataInterval, FoldPolicy, GapPolicy, Initial, LogicalDate, Overlap, Trigger, WatchScope,
    ZnodeTrigger,
};

const CRON: &str = "[[schedule]]\nname = \"a\"\ncron = \"30 2 * * *\"\ndag = \"d\"\n";
const ZNODE: &str = "[[schedule]]\nname = \"a\"\ndag = \"d\"\n";

fn znode(config: &crate::config::Config) -> &ZnodeTrigger {
    match &config.schedules[0].trigger {
        Trigger::Znode(znode) => znode,
        Trigger::Cron(_) | Trigger::Ensemble(_) => panic!("another trigger"),
    }
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = accepted("");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8787");
    assert!(config.schedules.is_empty() && config.zookeeper.is_none());
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    let config = accepted("\u{feff}[log]\nformat = \"json\"\n");
    assert_eq!(config.log.format, crate::config::model::LogFormat::Json);
}

#[test]
fn cron_and_znode_schedules_have_their_own_defaults() {
    let config = accepted(&format!("{BOTH}{CRON}{}", ZNODE.replace("\"a\"", "\"b\"") + "znode = { path = \"/a\" }\n"));
    let (cron, znode) = (&config.schedules[0], &config.schedules[1]);
    assert_eq!((cron.overlap, znode.overlap), (Overlap::Skip, Overlap::Allow));
    assert_eq!((cron.catchup, znode.catchup), (Catchup::Latest, Catchup::All));
    assert_eq!((cron.logical_date, znode.logical_date), (LogicalDate::Nominal, LogicalDate::None));
    assert_eq!((cron.data_interval, znode.data_interval), (DataInterval::Exact, DataInterval::Dag));
    assert_eq!((&*cron.airflow, &*znode.airflow), ("main", "main"));
}

#[test]
fn the_start_of_an_interval_implies_the_interval() {
    let config = accepted(&format!("{AIRFLOW}{CRON}logical_date = \"interval_start\"\n"));
    assert_eq!(config.schedules[0].data_interval, DataInterval::Previous);
}

#[test]
fn the_home_ensemble_has_one_name_which_is_none() {
    let ensembles = "[ensemble.main]\n[ensemble.solr]\nconnect = \"127.0.0.1:2182\"\n";
    for (named, expected) in [("main", None), ("solr", Some("solr"))] {
        let watched = format!("znode = {{ path = \"/a\", ensemble = \"{named}\" }}\n");
        let config = accepted(&format!("{BOTH}{ensembles}{ZNODE}{watched}"));
        assert_eq!(znode(&config).ensemble.as_deref(), expected);
    }
}

#[test]
fn a_lock_is_that_of_the_schedule_or_of_the_defaults() {
    let other = CRON.replace("\"a\"", "\"b\"");
    let config = accepted(&format!("{BOTH}[defaults]\nlock = \"warehouse\"\n{CRON}{other}lock = \"disk_1\"\n"));
    let locks: Vec<_> = config.schedules.iter().map(|schedule| schedule.lock.as_deref()).collect();
    assert_eq!(locks, [Some("warehouse"), Some("disk_1")]);
}

#[test]
fn an_ensemble_trigger_listens_to_an_ensemble_by_the_name_of_its_section() {
    let home = "[zookeeper]\nconnect = \"zk1\"\n";
    let solr = "[ensemble.solr]\nconnect = \"solr1\"\n";
    for (ensembles, named, expected) in [
        (home.to_owned(), "", "home"),
        (home.to_owned(), "name = \"home\", ", "home"),
        (format!("{home}[ensemble.main]\n{solr}"), "", "main"),
        (format!("{home}[ensemble.main]\n{solr}"), "name = \"home\", ", "main"),
        (format!("{home}{solr}"), "name = \"solr\", ", "solr"),
        (solr.to_owned(), "name = \"solr\", ", "solr"),
    ] {
        let listens = format!("ensemble = {{ {named}on = [\"server_up\", \"quorum_lost\"] }}\n");
        let config = accepted(&format!("{ensembles}{AIRFLOW}[defaults]\ncatchup = \"all\"\n{ZNODE}{listens}"));
        let schedule = &config.schedules[0];
        let Trigger::Ensemble(trigger) = &schedule.trigger else { panic!("another trigger") };
        assert_eq!(&*trigger.ensemble, expected);
        assert_eq!(trigger.on.iter().collect::<Vec<_>>(), [EnsembleEvent::QuorumLost, EnsembleEvent::ServerUp]);
        assert_eq!((schedule.overlap, schedule.catchup), (Overlap::Allow, Catchup::None));
        assert!(config.ensemble_to_check(Some(expected)).is_ok(), "it is looked at");
    }
    let config = accepted(&format!("{home}[ensemble.main]\ninterval = \"5s\"\n{solr}"));
    let intervals: Vec<_> = config.ensembles.values().map(|ensemble| ensemble.interval.as_secs()).collect();
    assert_eq!(intervals, [5, 15]);
}

#[test]
fn the_hour_field_decides_about_changes_of_the_clock() {
    let dst = |lines: &str| {
        let config = accepted(&format!("{AIRFLOW}[[schedule]]\nname = \"a\"\ndag = \"d\"\n{lines}\n"));
        match &config.schedules[0].trigger {
            Trigger::Cron(cron) => (cron.dst.gap, cron.dst.fold),
            Trigger::Znode(_) | Trigger::Ensemble(_) => panic!("another trigger"),
        }
    };
    assert_eq!(dst("cron = \"30 2 * * *\""), (GapPolicy::Shift, FoldPolicy::First));
    assert_eq!(dst("cron = \"30 * * * *\""), (GapPolicy::Skip, FoldPolicy::Both));
    assert_eq!(dst("cron = \"30 * * * *\"\ndst = { fold = \"last\" }"), (GapPolicy::Skip, FoldPolicy::Last));
}

#[test]
fn consuming_implies_what_it_needs() {
    let config = accepted(&format!(
        "{BOTH}[defaults]\noverlap = \"skip\"\ninitial = \"ignore\"\n{ZNODE}\
         znode = {{ path = \"/a\", watch = \"children\", consume = \"success\" }}\n"
    ));
    assert_eq!(znode(&config).consume, Some(Consume::Success));
    assert_eq!((znode(&config).initial, config.schedules[0].overlap), (Initial::Fire, Overlap::Allow));
    assert!(znode(&config).on.created && !znode(&config).on.changed && !znode(&config).on.deleted);
}

#[test]
fn a_znode_trigger_is_read() {
    let config = accepted(&format!(
        "{BOTH}{ZNODE}when = \"znode.text == 'a'\"\ninitial = {{ after_zxid = \"0x1a\" }}\n\
         [schedule.znode]\npath = \"/a\"\nwatch = \"subtree\"\non = [\"deleted\"]\ninclude = [\"**/*.json\", \"x\"]\n\
         settle = \"1h30m\"\nsettle_max = \"1d\"\nbatch = 100\n"
    ));
    let znode = znode(&config);
    assert_eq!((znode.watch, znode.initial), (WatchScope::Subtree, Initial::AfterZxid(26)));
    assert_eq!((znode.settle, znode.batch), (Some(Duration::from_mins(90)), Some(100)));
    let include = znode.include.as_ref().unwrap();
    let matches = ["a.json", "a/b/c.json", "x", "x/y", "a.yaml"].map(|path| include.is_match(path));
    assert_eq!(matches, [true, true, true, false, false]);
    assert!(config.schedules[0].when.as_ref().unwrap().uses("znode.text"));
    assert!(config.connection(None).is_some());
}

#[test]
fn defaults_of_a_file_go_before_those_of_the_main_one() {
    let (result, _) = check_files(
        &[
            (
                "flowkeeper.toml",
                b"include = [\"a.toml\", \"b/*.toml\"]\n[airflow.main]\nurl = \"http://a\"\n[airflow.x]\nurl = \"http://x\"\n\
                  [defaults]\nairflow = \"main\"\nowner = \"platform\"\ntimezone = \"Europe/Berlin\"\nretry = { for = \"2h\" }\n",
            ),
            ("a.toml", b"[defaults]\nowner = \"payments\"\nretry = { max = \"5m\" }\n[[schedule]]\nname = \"a\"\ncron = \"@daily\"\ndag = \"d\"\n"),
            ("b/b.toml", b"[[schedule]]\nname = \"b\"\ncron = \"@daily\"\ndag = \"d\"\nowner = \"me\"\nairflow = \"x\"\n"),
            ("b/ignored.txt", b"no TOML"),
        ],
        &[],
    );
    let (config, warnings) = result.unwrap();
    assert_eq!(warnings, []);
    let [a, b] = config.schedules.as_slice() else { panic!("{:?}", config.schedules) };
    assert_eq!((a.owner.as_deref(), b.owner.as_deref()), (Some("payments"), Some("me")));
    assert_eq!((&*a.airflow, &*b.airflow), ("main", "x"));
    assert_eq!(a.timezone.iana_name(), Some("Europe/Berlin"));
    assert_eq!((a.retry.total, a.retry.max), (Duration::from_hours(2), Duration::from_mins(5)));
}

#[test]
fn catching_up_with_all_while_skipping_overlaps_is_warned_about() {
    let cases = [
        ("catchup = \"all\"\n", Some("schedule.catchup")),
        ("catchup = \"all\"\noverlap = \"skip\"\n", Some("schedule.catchup")),
        ("catchup = \"all\"\noverlap = \"queue\"\n", None),
        ("", None),
    ];
    for (keys, expected) in cases {
        let text = format!(
            "[airflow.main]\nurl = \"http://a\"\n[[schedule]]\nname = \"a\"\ncron = \"@daily\"\ndag = \"d\"\n{keys}"
        );
        let (result, _) = check_files(&[("flowkeeper.toml", text.as_bytes())], &[]);
        let (_, warnings) = result.unwrap();
        assert_eq!(warnings.first().map(|fault| fault.key.as_str()), expected, "{keys}");
        assert!(warnings.iter().all(|fault| fault.hint.as_ref().is_some_and(|hint| hint.contains("queue"))));
    }
}

#[test]
fn a_file_that_two_name_is_read_once_and_a_glob_may_match_its_own_file() {
    let (result, _) = check_files(
        &[
            ("flowkeeper.toml", b"include = [\"*.toml\", \"a.toml\"]\n[airflow.main]\nurl = \"http://a\"\n"),
            ("a.toml", b"include = [\"b.toml\"]\n[[schedule]]\nname = \"a\"\ncron = \"@daily\"\ndag = \"d\"\n"),
            ("b.toml", b"[[schedule]]\nname = \"b\"\ncron = \"@daily\"\ndag = \"d\"\n"),
        ],
        &[],
    );
    let (config, _) = result.unwrap_or_else(|faults| panic!("{}", render::human(&faults.faults, render::Color::Off)));
    assert_eq!(config.schedules.len(), 2);
}

#[test]
fn paths_start_from_the_file_that_names_them() {
    let (result, directory) = check_files(
        &[
            ("flowkeeper.toml", b"include = [\"sub/a.toml\"]\n[store]\nurl = \"sqlite://data/x.db\"\n"),
            ("sub/a.toml", b"[airflow.main]\nurl = \"http://a\"\nauth = { token = { file = \"token\" } }\ntls = { ca = \"/etc/ca.pem\" }\n"),
        ],
        &[],
    );
    let (config, _) = result.unwrap();
    assert_eq!(config.store.url, format!("sqlite://{directory}data/x.db"));
    let airflow = &config.airflows["main"];
    let AirflowAuth::Token(SecretRef::File(token)) = &airflow.auth else { panic!("{:?}", airflow.auth) };
    assert_eq!(token.display().to_string(), format!("{directory}sub/token"));
    assert_eq!(airflow.ca.as_ref().unwrap().display().to_string(), "/etc/ca.pem");
}

#[test]
fn the_password_of_a_database_is_kept_apart_and_never_printed() {
    let (result, directory) = check_files(
        &[(
            "flowkeeper.toml",
            b"[store]\nurl = \"postgres://me@db/x?sslmode=verify-full&sslrootcert=ca.pem\"\npassword = { env = \"P\" }\n",
        )],
        &[],
    );
    let store = result.unwrap().0.store;
    let encoded = directory.replace('/', "%2F");
    let url = format!("postgres://me@db/x?sslmode=verify-full&sslrootcert={encoded}ca.pem");
    assert_eq!(store.url, url);
    let environment: Environment = [("P", "hunter2 & 100%")].into_iter().collect();
    let address = store.address(&environment).unwrap();
    assert_eq!(address.expose(), format!("{url}&password=hunter2+%26+100%25"));
    assert!(store.address(&Environment::default()).is_err());
    let inline = accepted("[store]\nurl = \"postgres://me:hunter2@db/x\"\n").store;
    assert_eq!(inline.address(&Environment::default()).unwrap().expose(), "postgres://me:hunter2@db/x");
    assert!(!format!("{store:?}{address:?}{inline:?}").contains("hunter2"));
}

#[test]
fn every_way_to_authenticate_is_read() {
    let auth = |written: &str| {
        accepted(&format!("[airflow.main]\nurl = \"http://a/base/\"\n{written}\n")).airflows["main"].auth.clone()
    };
    assert!(matches!(auth(""), AirflowAuth::None));
    assert!(matches!(
        auth("auth = { username = \"u\", password = { env = \"P\" } }"),
        AirflowAuth::Password { username, password: SecretRef::Env(name) } if username == "u" && name == "P"
    ));
    assert!(matches!(auth("auth = { token = { env = \"T\" } }"), AirflowAuth::Token(_)));
    assert!(matches!(
        auth("[airflow.main.auth.oauth2]\ntoken_url = \"https://l/token/?x=1\"\nclient_id = \"c\"\nclient_secret = { env = \"S\" }\nscope = \"s\""),
        AirflowAuth::OAuth2 { token_url, scope: Some(_), audience: None, .. } if token_url == "https://l/token/?x=1"
    ));
    assert!(matches!(
        auth("auth = { command = [\"gcloud\", \"auth\"], ttl = \"5m\" }"),
        AirflowAuth::Command { command, ttl } if command.len() == 2 && ttl == Duration::from_mins(5)
    ));
}

#[test]
fn servers_get_the_usual_port() {
    let config = accepted("[zookeeper]\nconnect = \"zk1, zk2:2182,[::1]:2183/a/b\"\n");
    assert_eq!(config.zookeeper.unwrap().connection.connect, "zk1:2181,zk2:2182,[::1]:2183/a/b");
}

#[test]
fn beyond_loopback_a_token_is_enough() {
    let config = accepted(
        "[server]\nlisten = \"0.0.0.0:80\"\n[[server.token]]\nname = \"ci\"\nvalue = { env = \"T\" }\nrole = \"admin\"\n",
    );
    assert_eq!((config.server.tokens[0].name.as_str(), config.server.tokens[0].role), ("ci", Role::Admin));
}

#[test]
fn variables_take_the_place_of_values() {
    let file: &[(&str, &[u8])] =
        &[("flowkeeper.toml", b"[log]\nformat = \"text\"\n[airflow.my-airflow]\nurl = \"http://a\"\nin_flight = 2\n")];
    let (result, _) = check_files(
        file,
        &[
            ("FLOWKEEPER_SERVER__LISTEN", "127.0.0.1:1"),
            ("FLOWKEEPER_LOG__FORMAT", "json"),
            ("FLOWKEEPER_STORE__RETENTION", "7d"),
            ("FLOWKEEPER_AIRFLOW__MY_AIRFLOW__IN_FLIGHT", "8"),
            ("FLOWKEEPER_AIRFLOW__MY_AIRFLOW__MONITOR", "[\"a*\", \"b\"]"),
            ("FLOWKEEPER_AIRFLOW__MY_AIRFLOW__AUTH__TOKEN", "{ env = \"T\" }"),
            ("FLOWKEEPER_DEFAULTS__OWNER", "2026"),
            ("FLOWKEEPER_ZOOKEEPER__CONNECT", "zk1:2181"),
            ("FLOWKEEPER_CONFIG", "is not a value"),
            ("OTHER__VARIABLE", "x"),
        ],
    );
    let (config, _) = result.unwrap_or_else(|faults| panic!("{}", render::human(&faults.faults, render::Color::Off)));
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.log.format, crate::config::model::LogFormat::Json);
    assert_eq!(config.store.retention, Duration::from_hours(7 * 24));
    let airflow = &config.airflows["my-airflow"];
    assert_eq!(airflow.in_flight, InFlight::Fixed(8.try_into().unwrap()));
    assert!(airflow.monitor.matches("abc") && airflow.monitor.matches("b") && !airflow.monitor.matches("c"));
    assert!(matches!(airflow.auth, AirflowAuth::Token(_)));
    assert!(config.zookeeper.is_some());
}

#[test]
fn secrets_are_read_when_asked_for_and_never_printed() {
    let (result, directory) = check_files(
        &[
            (
                "flowkeeper.toml",
                b"[airflow.main]\nurl = \"http://a\"\nauth = { username = \"u\", password = { env = \"P\" } }\n\
                  headers = { \"X-Plain\" = \"hunter2\", \"X-Secret\" = { file = \"token\" } }\n",
            ),
            ("token", b"  hunter2\n"),
        ],
        &[("P", "hunter2")],
    );
    let (config, _) = result.unwrap();
    let environment: Environment = [("P", "hunter2")].into_iter().collect();
    let airflow = &config.airflows["main"];
    let AirflowAuth::Password { password, .. } = &airflow.auth else { panic!("{:?}", airflow.auth) };
    let secret = password.resolve(&environment).unwrap();
    assert_eq!(secret.expose(), "hunter2");
    for printed in [format!("{config:?}"), format!("{secret:?}"), format!("{environment:?}")] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    assert!(matches!(&airflow.headers[0].1, HeaderText::Plain(text) if text == "hunter2"));
    let missing = password.resolve(&Environment::default()).unwrap_err().to_string();
    assert_eq!(missing, "the environment variable P is not set");
    // The directory is gone by now.
    let HeaderText::Secret(file) = &airflow.headers[1].1 else { panic!("{:?}", airflow.headers) };
    let unreadable = file.resolve(&environment).unwrap_err().to_string();
    assert!(unreadable.starts_with(&format!("{directory}token cannot be read")), "{unreadable}");
}

/// Large files are parsed in parts; nothing but the memory may differ.
#[test]
fn a_large_file_is_read_as_a_small_one_is() {
    let schedule = |index: usize| {
        format!(
            "[[schedule]]\nname = \"s{index}\"\ndag = \"d\"\nconf = {{ n = {index} }}\n[schedule.znode]\npath = \"/a/{index}\"\n"
        )
    };
    let many: String = (0..5_000).map(schedule).collect();
    let config = accepted(&format!("{BOTH}{many}[defaults]\nowner = \"platform\"\n"));
    assert_eq!(config.schedules.len(), 5_000);
    assert!(config.schedules.iter().enumerate().all(|(index, schedule)| {
        schedule.name.as_str() == format!("s{index}") && schedule.owner.as_deref() == Some("platform")
    }));

    // A section between the schedules, and a text that looks like a header: only the whole is right.
    let text = "[[schedule]]\nname = \"odd\"\ncron = \"@daily\"\ndag = \"d\"\nconf = { t = '''\n[[schedule]]\n''' }\n";
    let config = accepted(&format!("{many}{BOTH}{text}{}", many.replace("name = \"s", "name = \"t")));
    assert_eq!(config.schedules.len(), 10_001);

    // Faults have their place in the whole file.
    let (result, _) = check_files(&[("f", format!("{BOTH}{many}[[schedule]]\nname = \"s7\"\n").as_bytes())], &[]);
    let faults = result.unwrap_err().faults;
    let last_line = 4 + 6 * 5_000 + 1;
    assert!(faults.iter().all(|fault| fault.line == last_line), "{faults:?}");
    assert_eq!(faults.len(), 2, "{faults:?}");
}
