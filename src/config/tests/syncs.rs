//! `[[sync]]`: what is read, what stands in, and what is wrong with each alone and with several.

use std::time::Duration;

use super::{AIRFLOW, BOTH, accepted, told};
use crate::domain::schedule::WatchScope;
use crate::domain::sync::definition::DriftPolicy;
use crate::domain::sync::entry::EntryKind;

const SYNC: &str = "[[sync]]\nname = \"a\"\nznode = { path = \"/config/app\" }\nto = \"variables\"\n";

fn wrong(pieces: &[&str]) -> String {
    told(&[("flowkeeper.toml", pieces.concat().as_bytes())], &[])
}

#[test]
fn a_sync_has_defaults_that_delete_and_take_nothing() {
    let config = accepted(&[BOTH, SYNC].concat());
    let sync = config.sync("a").expect("it is there");
    assert_eq!((&*sync.airflow, sync.kind, &*sync.path), ("main", EntryKind::Variables, "/config/app"));
    assert_eq!((sync.scope, sync.drift), (WatchScope::Children, DriftPolicy::Report));
    assert!(!sync.prune && !sync.adopt && sync.value.is_none() && sync.ensemble.is_none());
    assert_eq!((sync.interval, sync.key("x")), (Duration::from_mins(5), "x".to_owned()));
}

#[test]
fn every_key_of_a_sync_is_read() {
    let text = [
        BOTH,
        "[ensemble.solr]\nconnect = \"h:2181\"\n[airflow.other]\nurl = \"http://h\"\n[[sync]]\nname = \"b-1\"\n\
         airflow = \"other\"\nznode = { path = \"/c\", watch = \"subtree\", separator = \"__\", ensemble = \"solr\" }\n\
         to = \"connections\"\nprefix = \"app_\"\nvalue = \"{{ znode.json.uri }}\"\nprune = true\ndrift = \"repair\"\n\
         adopt = true\ninterval = \"30s\"\n",
    ];
    let config = accepted(&text.concat());
    let sync = config.sync("b-1").expect("it is there");
    assert_eq!((&*sync.airflow, sync.ensemble.as_deref(), sync.scope), ("other", Some("solr"), WatchScope::Subtree));
    assert_eq!((sync.drift, sync.key("a/b")), (DriftPolicy::Repair, "app_a__b".to_owned()));
    assert!(sync.prune && sync.adopt && sync.value.is_some());
    // The home ensemble has one name, which is none.
    let home = [BOTH, "[ensemble.main]\n", &SYNC.replace("\" }", "\", ensemble = \"main\" }")].concat();
    assert_eq!(accepted(&home).sync("a").expect("it is there").ensemble, None);
}

#[test]
fn what_is_wrong_with_a_sync_is_told_with_its_remedy() {
    let with = |more: &str| wrong(&[BOTH, SYNC, more]);
    let znode = |znode: &str| wrong(&[BOTH, &SYNC.replace("path = \"/config/app\"", znode)]);
    for (told, words) in [
        (wrong(&[BOTH, "[[sync]]\n"]), vec!["`name` is missing", "`znode` is missing", "`to` is missing"]),
        (wrong(&[BOTH, "[sync]\nname = \"a\"\n"]), vec!["syncs are written as [[sync]]"]),
        (wrong(&[AIRFLOW, SYNC]), vec!["a sync needs the home ensemble", "[zookeeper]"]),
        (wrong(&["[zookeeper]\nconnect = \"a\"\n", SYNC]), vec!["there is no Airflow to keep in step"]),
        (wrong(&[BOTH, "[airflow.b]\nurl = \"http://h\"\n", SYNC]), vec!["this sync names none", "b, main"]),
        (with("airflow = \"mian\"\n"), vec!["there is no [airflow.mian]", "main"]),
        (wrong(&[BOTH, &SYNC.replace("\"a\"", "\"A b\"")]), vec!["not a name for a sync"]),
        (wrong(&[BOTH, &SYNC.replace("variables", "variable")]), vec!["\"variable\" is not known here"]),
        (with("prefix = \"a\\tb\"\n"), vec!["no key can begin with"]),
        (with("value = \"{{ vlaue }}\"\n"), vec!["this template cannot be read", "`value`"]),
        (with("value = \"{{ schedule.name }}\"\n"), vec!["`schedule` is not a variable"]),
        (with("interval = \"1s\"\n"), vec!["1s is out of range", "10s"]),
        (with("drift = \"ignore\"\n"), vec!["\"ignore\" is not known here"]),
        (znode("path = \"config\""), vec!["it does not begin with /"]),
        (znode("watch = \"node\""), vec!["`path` is missing"]),
        (znode("path = \"/a\", separator = \"_\""), vec!["only the paths of a subtree"]),
        (znode("path = \"/a\", watch = \"subtree\", separator = \"\""), vec!["cannot separate"]),
        (znode("path = \"/a\", ensemble = \"solr\""), vec!["there is no [ensemble.solr]"]),
        (znode("path = \"/flowkeeper/x\""), vec!["flowkeeper's own state"]),
        (znode("path = \"/\", watch = \"subtree\""), vec!["flowkeeper's own state"]),
        (wrong(&[BOTH, SYNC, SYNC]), vec!["two syncs are named \"a\"", "writes the same variables"]),
    ] {
        for word in words {
            assert!(told.contains(word), "{word}\n{told}");
        }
        assert!(told.contains("hint: ") || told.contains("help: "), "{told}");
    }
    let subtree = SYNC.replace("\"a\"", "\"b\"").replace("\" }", "\", watch = \"subtree\" }");
    let told = wrong(&[BOTH, SYNC, &subtree]);
    assert!(told.contains("the sync \"a\" writes the same variables"), "{told}");
    let beside = [BOTH, SYNC, &SYNC.replace("\"a\"", "\"b\""), "prefix = \"b_\"\n"].concat();
    assert_eq!(accepted(&beside).syncs.len(), 2, "with another prefix they write other keys");
}
