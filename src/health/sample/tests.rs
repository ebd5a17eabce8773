//! What real servers say (of ZooKeeper 3.8.0, in `../fixtures`), what others write, and rubbish.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::health::facts::{Flavour, Mode, WriteAccess};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/", $name))
    };
}

fn admin_object(text: &str) -> Map<String, Value> {
    admin::object(text.as_bytes()).expect("an answer")
}

#[test]
fn answers_that_say_nothing_are_told_apart() {
    for (word, answer, why) in [
        ("mntr", fixture!("4lw-mntr.noquorum.txt"), Why::NotServing),
        ("srvr", fixture!("4lw-srvr.noquorum.txt"), Why::NotServing),
        ("mntr", fixture!("4lw-mntr.default-whitelist.txt"), Why::Refused("mntr")),
        ("cons", fixture!("4lw-cons.default-whitelist.txt"), Why::Refused("cons")),
        ("isro", fixture!("4lw-isro.default-whitelist.txt"), Why::Refused("isro")),
        ("srvr", "", Why::TurnedAway),
        ("srvr", "\n", Why::TurnedAway),
    ] {
        assert_eq!(words::said(word, answer), Err(why), "{word}");
    }
    assert_eq!(words::said("isro", "rw"), Ok("rw"));
}

#[test]
fn srvr_is_read_of_every_role_and_version() {
    let zookeeper_3_5 = "Zookeeper version: 3.5.10-e5e5a5d, built on 08/20/2022 18:51 GMT\n\
                         Latency min/avg/max: 0/1/21\nReceived: 12\nSent: 11\nConnections: 1\nOutstanding: 3\n\
                         Zxid: 0x500000002\nMode: observer\nNode count: 7\n";
    let zookeeper_3_9 = "Zookeeper version: 3.9.3-c26634f34490bb0ea7a09cc51e05ede3b4e320ee, built on 2024-10-17 23:21 UTC\r\n\
                         Latency min/avg/max: 0/0.4286/3\r\nReceived: 16\r\nSent: 15\r\nConnections: 2\r\nOutstanding: 0\r\n\
                         Zxid: 0xffffffff00000001\r\nMode: standalone\r\nNode count: 5\r\n";
    let keeper = "ClickHouse Keeper version: v24.8.4.13-lts-53195bc189ba7dbe0c6ebd6f3ba0ac8d9f8fb4ed\n\
                  Latency min/avg/max: 0/0/0\nReceived: 3\nSent: 2\nConnections: 1\nOutstanding: 0\nZxid: 58\n\
                  Mode: leader\nNode count: 9\n";
    for (answer, version, mode, zxid, outstanding, znodes) in [
        (fixture!("4lw-srvr.leader.txt"), "3.8.0", Mode::Leader, Some(0x1_0000_0037), 0.0, 58.0),
        (fixture!("4lw-srvr.follower.txt"), "3.8.0", Mode::Follower, Some(0x1_0000_0037), 0.0, 58.0),
        (fixture!("4lw-srvr.readonly.txt"), "3.8.0", Mode::ReadOnly, Some(0x1_0000_0038), 0.0, 57.0),
        (zookeeper_3_5, "3.5.10", Mode::Observer, Some(0x5_0000_0002), 3.0, 7.0),
        (zookeeper_3_9, "3.9.3", Mode::Standalone, Some(-0xffff_ffff), 0.0, 5.0),
        (keeper, "24.8.4.13", Mode::Leader, None, 0.0, 9.0),
    ] {
        let summary = words::summary(answer).expect(version);
        assert_eq!((summary.version.as_str(), &summary.mode, summary.zxid), (version, &mode, zxid));
        assert_eq!((summary.outstanding, summary.znodes), (Some(outstanding), Some(znodes)), "{version}");
        let is_keeper = summary.flavour == Flavour::ClickHouseKeeper;
        assert_eq!(is_keeper, version.starts_with("24."));
    }
    for rubbish in
        ["HTTP/1.1 400 Bad Request", "Zookeeper version: 3.8.0", "Mode: leader", "SSH-2.0-OpenSSH_9.2\u{1b}[2J"]
    {
        let why = words::summary(rubbish).expect_err(rubbish);
        assert!(matches!(&why, Why::Unreadable(shown) if !shown.contains('\u{1b}')), "{why:?}");
    }
}

#[test]
fn mntr_and_monitor_give_the_same_numbers() {
    for (word, command) in [
        (fixture!("4lw-mntr.leader.txt"), fixture!("admin-monitor.leader.json")),
        (fixture!("4lw-mntr.follower.txt"), fixture!("admin-monitor.follower.json")),
        (fixture!("4lw-mntr.readonly.txt"), fixture!("admin-monitor.readonly.json")),
    ] {
        let (by_word, by_admin) =
            (words::metrics(word).expect("numbers"), admin::metrics(&admin_object(command)).expect("numbers"));
        for key in [
            "outstanding_requests",
            "znode_count",
            "watch_count",
            "ephemerals_count",
            "approximate_data_size",
            "open_file_descriptor_count",
            "max_file_descriptor_count",
            "uptime",
            "connection_rejected",
            "cnt_election_time",
            "looking_count",
            "sum_fsynctime",
            "cnt_updatelatency",
            "unrecoverable_error_count",
            "digest_mismatches_count",
            "auth_failed_count",
        ] {
            assert!(by_word.contains_key(key), "{key}");
            assert!(by_admin.contains_key(key), "{key}");
        }
        assert_eq!(by_word.get("approximate_data_size"), by_admin.get("approximate_data_size"));
    }
    let leader = words::metrics(fixture!("4lw-mntr.leader.txt")).unwrap();
    assert_eq!((leader["synced_followers"], leader["quorum_size"], leader["avg_fsynctime"]), (2.0, 3.0, 0.1455));
    // ZooKeeper 3.5, and values that are no numbers.
    let old =
        words::metrics("zk_version\t3.5.10\nzk_followers\t2\nzk_avg_latency\tNaN\nzk_synced_followers\t2\n").unwrap();
    assert_eq!(old.keys().collect::<Vec<_>>(), ["followers", "synced_followers"]);
    assert!(words::metrics("<html>").is_err());
}

#[test]
fn the_admin_server_has_many_ways_to_say_that_it_does_not_serve() {
    for answer in [fixture!("admin-server_stats.noquorum.json"), fixture!("admin-dirs.noquorum.json")] {
        assert_eq!(admin::object(answer.as_bytes()), Err(Why::NotServing));
    }
    assert_eq!(admin::object(br#"{"error": "server is not initialized", "command": "leader"}"#), Err(Why::NotServing));
    for other in [fixture!("admin-monitor.noquorum.json"), r#"{"detail": "Not Found"}"#, "[]", ""] {
        assert!(matches!(admin::object(other.as_bytes()), Err(Why::Unreadable(_))), "{other}");
    }
}

#[test]
fn server_stats_tells_what_srvr_tells() {
    for (word, command) in [
        (fixture!("4lw-srvr.leader.txt"), fixture!("admin-server_stats.leader.json")),
        (fixture!("4lw-srvr.follower.txt"), fixture!("admin-server_stats.follower.json")),
        (fixture!("4lw-srvr.readonly.txt"), fixture!("admin-server_stats.readonly.json")),
    ] {
        assert_eq!(words::summary(word), admin::summary(&admin_object(command)));
    }
    assert_eq!(admin::slow_fsyncs(&admin_object(fixture!("admin-server_stats.leader.json"))), Some(0));
    assert!(admin::summary(&admin_object(r#"{"command": "server_stats", "error": null}"#)).is_err());
}

#[test]
fn connections_are_counted_by_address() {
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(words::connections(fixture!("4lw-cons.follower.txt")).unwrap()[&local], 2);
    let listed = admin::connections(&admin_object(fixture!("admin-connections.follower.json")));
    assert_eq!(listed.unwrap()[&local], 1);
    assert!(admin::connections(&admin_object(fixture!("admin-connections.leader.json"))).unwrap().is_empty());
    for (socket, address) in [
        ("/127.0.0.1:34414", Some("127.0.0.1")),
        ("/0:0:0:0:0:0:0:1:34414", Some("::1")),
        ("/[0:0:0:0:0:0:0:1]:34414", Some("::1")),
        ("/fe80:0:0:0:0:0:0:1%eth0:34414", Some("fe80::1")),
        ("host/10.0.0.7:1", Some("10.0.0.7")),
        ("10.0.0.7:1", Some("10.0.0.7")),
        ("nonsense", None),
        ("", None),
    ] {
        assert_eq!(words::address(socket), address.map(|address| address.parse().unwrap()), "{socket}");
    }
    assert!(words::connections("no such line").is_err());
}

#[test]
fn members_are_read_from_wherever_they_stand() {
    let settings = words::settings(fixture!("4lw-conf.leader.txt")).unwrap();
    assert_eq!((settings.id, settings.max_client_connections), (Some(3), Some(60)));
    assert_eq!(settings.members.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(settings.members.values().all(|member| member.votes));
    let told = admin::settings(
        &admin_object(fixture!("admin-configuration.leader.json")),
        Some(&admin_object(fixture!("admin-voting_view.leader.json"))),
    );
    assert_eq!((told.id, told.max_client_connections), (settings.id, settings.max_client_connections));
    assert!(told.members.keys().eq(settings.members.keys()));
    assert!(words::settings(fixture!("4lw-conf.readonly.txt")).unwrap().members.is_empty());
    let written =
        words::members("server.7=a:1:2:observer;0.0.0.0:2181\nserver.8=b:1:2;b:2181\ngroup.1=7:8\nversion=100\n");
    assert_eq!(written.iter().map(|(id, member)| (*id, member.votes)).collect::<Vec<_>>(), [(7, false), (8, true)]);
    assert!(words::settings("max_requests_batch_size=100\n").is_err());
    assert_eq!(words::settings("server_id=2\nfour_letter_word_allow_list=*\n").unwrap().id, Some(2));
}

#[test]
fn sizes_and_access_are_read() {
    assert_eq!(words::directory_bytes(fixture!("4lw-dirs.leader.txt")), Ok(67_108_880 + 645));
    assert_eq!(admin::directory_bytes(&admin_object(fixture!("admin-dirs.leader.json"))), Ok(67_108_880 + 645));
    assert!(words::directory_bytes("datadir_size: 1\n").is_err());
    for (answer, access) in [
        (fixture!("4lw-isro.leader.txt"), WriteAccess::ReadWrite),
        (fixture!("4lw-isro.readonly.txt"), WriteAccess::ReadOnly),
        (fixture!("4lw-isro.noquorum.txt"), WriteAccess::None),
    ] {
        assert_eq!(words::write_access(answer), Ok(access));
    }
    assert!(words::write_access("yes").is_err());
}

#[test]
fn a_clock_is_wrong_by_what_whole_seconds_do_not_explain() {
    let date = "Sun, 22 Nov 2026 18:10:03 GMT";
    for (asked, answered, offset) in [
        ("2026-11-22T18:10:03.500Z", "2026-11-22T18:10:03.600Z", Some(0)),
        ("2026-11-22T18:10:04.001Z", "2026-11-22T18:10:04.100Z", Some(-2)),
        ("2026-11-22T18:10:01.000Z", "2026-11-22T18:10:02.000Z", Some(1000)),
        ("2026-11-22T18:11:03.999Z", "2026-11-22T18:11:04.000Z", Some(-60_000)),
    ] {
        assert_eq!(clock_offset_ms(date, asked.parse().unwrap(), answered.parse().unwrap()), offset, "{asked}");
    }
    assert_eq!(clock_offset_ms("yesterday", Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH), None);
}

/// Everything that reads what comes from the network.
fn read_as_everything(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for word in FURTHER_WORDS {
        let _ = words::said(word, &text);
    }
    let _ = words::summary(&text);
    let _ = words::metrics(&text);
    let _ = words::write_access(&text);
    let _ = words::directory_bytes(&text);
    let _ = words::connections(&text);
    let _ = words::settings(&text);
    let _ = words::members(&text);
    let _ = words::address(&text);
    clock_offset_ms(&text, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    if let Ok(object) = admin::object(bytes) {
        let _ = admin::summary(&object);
        let _ = admin::slow_fsyncs(&object);
        let _ = admin::metrics(&object);
        let _ = admin::connections(&object);
        let _ = admin::settings(&object, Some(&object));
        let _ = admin::directory_bytes(&object);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_borne(bytes: Vec<u8>) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_answers_are_borne(which in 0..6_usize, at: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 0..8)) {
        let fixtures = [
            fixture!("4lw-srvr.leader.txt"),
            fixture!("4lw-mntr.leader.txt"),
            fixture!("4lw-cons.follower.txt"),
            fixture!("4lw-conf.leader.txt"),
            fixture!("admin-server_stats.leader.json"),
            fixture!("admin-voting_view.leader.json"),
        ];
        let mut damaged = fixtures[which].as_bytes().to_vec();
        let at = at.index(damaged.len());
        damaged.splice(at..(at + bytes.len()).min(fixtures[which].len()), bytes);
        read_as_everything(&damaged);
    }
}
