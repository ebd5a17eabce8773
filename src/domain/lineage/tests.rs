//! The cases, each with what happened in the world.

use super::*;

const OURS: &str = "0b5c";

fn found(generation: u32, store: &str, mark: i64, czxid: i64) -> FoundNode {
    FoundNode {
        node: StoreNode { generation, store_id: store.to_owned(), mark },
        place: Incarnation { czxid, version: 3 },
    }
}

fn confirmed(generation: u32, mark: i64, czxid: i64) -> Confirmed {
    Confirmed { generation, mark, czxid }
}

fn memory(generation: u32, mark: i64, confirmed: impl Into<Option<Confirmed>>) -> Memory {
    Memory { generation, mark, confirmed: confirmed.into(), ..Memory::default() }
}

fn verdict(memory: &Memory, found: Found) -> String {
    match judge(OURS, memory, found) {
        Verdict::Fine(place) => format!("fine {:x}", place.czxid),
        Verdict::Create => "create".to_owned(),
        Verdict::Broken(broken) => broken.as_str().to_owned(),
    }
}

#[test]
fn what_was_read_is_judged_by_what_is_remembered() {
    let unreadable = || Found::Unreadable { reason: "rubbish".into(), place: Incarnation { czxid: 0x50, version: 0 } };
    let ours = |generation, mark, czxid| Found::Node(found(generation, OURS, mark, czxid));
    let theirs = |mark| Found::Node(found(4, "other", mark, 0x70));
    let usual = memory(1, 20, confirmed(1, 20, 0x10));
    let cases = [
        // A beginning.
        (memory(0, 0, None), Found::Absent, "create"),
        // The ledger was written, and the process died before the znode was.
        (memory(0, 1, None), Found::Absent, "create"),
        // … or before the ledger had noted it.
        (memory(0, 1, None), ours(0, 1, 0x10), "fine 10"),
        (usual.clone(), ours(1, 20, 0x10), "fine 10"),
        // Died between ledger and znode, at a raise; and between znode and note.
        (memory(1, 21, confirmed(1, 20, 0x10)), ours(1, 20, 0x10), "fine 10"),
        (memory(1, 21, confirmed(1, 20, 0x10)), ours(1, 21, 0x10), "fine 10"),
        // Several raises were never noted.
        (memory(1, 30, confirmed(1, 20, 0x10)), ours(1, 25, 0x10), "fine 10"),
        // Wiped.
        (usual.clone(), Found::Absent, "missing"),
        // A snapshot from before the last note, and from before an adoption.
        (usual.clone(), ours(1, 19, 0x10), "older"),
        (usual.clone(), ours(0, 20, 0x10), "older"),
        (usual.clone(), ours(1, 19, 0x99), "older"),
        // Rebuilt, and the znodes copied back: the same content under a transaction of its own.
        (usual.clone(), ours(1, 20, 0x99), "recreated"),
        // The ledger is from an hour ago; from before an adoption; from before the first note.
        (usual.clone(), ours(1, 80, 0x10), "ledger_restored"),
        (usual.clone(), ours(2, 80, 0x99), "ledger_restored"),
        (memory(0, 0, None), ours(0, 5, 0x10), "ledger_restored"),
        // Somebody else's.
        (usual.clone(), theirs(20), "foreign"),
        (memory(0, 0, None), theirs(20), "foreign"),
        (usual.clone(), unreadable(), "unreadable"),
        (memory(0, 0, None), unreadable(), "unreadable"),
    ];
    for (memory, found, expected) in cases {
        let shown = format!("{memory:?} {found:?}");
        assert_eq!(verdict(&memory, found), expected, "{shown}");
    }
}

/// What an adoption has to bring about, however the process dies in the middle of it.
#[test]
fn what_was_adopted_is_fine_and_adopted_once() {
    let usual = memory(1, 20, confirmed(1, 20, 0x10));
    let place = Incarnation { czxid: 0x50, version: 0 };
    let time = TimeWentBack { handled: 9, now: 3 };
    let contradicted =
        Break::Contradicted { schedule: ScheduleName::new("inbox").unwrap(), path: "/inbox".into(), source: time };
    let reset = |decision| CursorsAfter::Begin(decision);
    // (what was found, the generation afterwards, whether zxids end, the cursors of `--fire`)
    let cases = [
        (Found::Absent, 2, true, reset(Adopt::Fire)),
        (Found::Node(found(1, OURS, 5, 0x10)), 2, true, reset(Adopt::Fire)),
        (Found::Node(found(1, OURS, 20, 0x99)), 2, true, reset(Adopt::Fire)),
        // Ids of another store's generations are taken in Airflow, too.
        (Found::Node(found(4, "other", 7, 0x70)), 5, true, reset(Adopt::Fire)),
        (Found::Unreadable { reason: "rubbish".into(), place }, 2, true, reset(Adopt::Fire)),
        // The ensemble knows better; its zxids can be compared.
        (Found::Node(found(1, OURS, 80, 0x10)), 1, false, CursorsAfter::Kept),
        // … unless it was itself adopted since the copy was made.
        (Found::Node(found(3, OURS, 80, 0x99)), 3, true, reset(Adopt::Fire)),
    ];
    for (read, generation, zxids_end, cursors) in cases {
        let Verdict::Broken(broken) = judge(OURS, &usual, read.clone()) else { panic!("{read:?} is fine") };
        let fire = adoption(&usual, &broken, Adopt::Fire);
        assert_eq!(
            (fire.memory.generation, fire.zxids_end, fire.cursors),
            (generation, zxids_end, cursors),
            "{read:?}"
        );
        let ignore = adoption(&usual, &broken, Adopt::Ignore);
        assert_eq!(ignore.cursors, reset(Adopt::Ignore), "{read:?}");
        assert_eq!(ignore.memory, fire.memory);
        // Died before the znode was written: the same read is no break any more.
        let again = judge(OURS, &fire.memory, read.clone());
        assert!(matches!(again, Verdict::Fine(_) | Verdict::Create), "{read:?}: {again:?}");
        // Written, and died before that was noted.
        let raised = Memory { mark: fire.memory.mark + 1, ..fire.memory };
        let czxid = match &read {
            Found::Absent => 0x200,
            Found::Node(found) => found.place.czxid,
            Found::Unreadable { place, .. } => place.czxid,
        };
        let written = Found::Node(found(raised.generation, OURS, raised.mark, czxid));
        assert_eq!(verdict(&raised, written), format!("fine {czxid:x}"), "{read:?}");
    }
    let adopted = adoption(&usual, &contradicted, Adopt::Ignore);
    assert_eq!(adopted.memory, Memory { generation: 2, ..usual });
    assert!(adopted.zxids_end);
}

#[test]
fn what_is_to_be_replaced_is_exactly_what_the_operator_was_shown() {
    let usual = memory(1, 20, confirmed(1, 20, 0x10));
    let theirs = found(4, "other", 7, 0x70);
    let adopted = adoption(&usual, &Break::Foreign(theirs.clone()), Adopt::Ignore).memory;
    let mut written_since = theirs;
    written_since.place.version += 1;
    assert_eq!(verdict(&adopted, Found::Node(written_since)), "foreign", "somebody works there after all");
}

#[test]
fn the_data_of_the_znode_is_read_with_care() {
    let node = StoreNode { generation: 2, store_id: OURS.into(), mark: 7 };
    assert_eq!(StoreNode::parse(node.to_json().as_bytes()), Ok(node.clone()));
    let newer = br#"{"generation":2,"store_id":"0b5c","mark":7,"added":{"later":true}}"#;
    assert_eq!(StoreNode::parse(newer), Ok(node));
    for rubbish in [
        &b""[..],
        b"{}",
        b"null",
        b"\xff\xfe",
        br#"{"generation":-1,"store_id":"0b5c","mark":7}"#,
        br#"{"generation":1,"store_id":"0b5c","mark":-7}"#,
        br#"{"generation":1,"store_id":"","mark":7}"#,
        br#"{"generation":99999999999,"store_id":"0b5c","mark":7}"#,
    ] {
        StoreNode::parse(rubbish).expect_err(&String::from_utf8_lossy(rubbish));
    }
}

#[test]
fn a_break_names_what_was_found_what_is_remembered_and_the_command() {
    let usual = memory(1, 20, confirmed(1, 20, 0x10));
    let cases: [(Break, &[&str]); 5] = [
        (Break::Missing, &["/flowkeeper/store", "generation 1", "mark 20", "rebuilt"]),
        (Break::Older(found(1, OURS, 5, 0x10)), &["mark 5", "mark 20", "earlier state"]),
        (Break::Recreated(found(1, OURS, 20, 0x99)), &["0x99", "0x10", "copied"]),
        (Break::Foreign(found(4, "other", 7, 0x70)), &["store other", "store 0b5c", "mark 7"]),
        (Break::LedgerRestored(found(1, OURS, 80, 0x10)), &["mark 80", "mark 20", "restored from a copy"]),
    ];
    for (broken, parts) in cases {
        let text = broken.describe("/flowkeeper/store", OURS, &usual);
        for part in parts {
            assert!(text.contains(part), "no `{part}` in: {text}");
        }
        let hint = broken.hint(None);
        assert!(hint.contains("flowkeeper adopt --ignore") && hint.contains("flowkeeper adopt --fire"), "{hint}");
        assert!(broken.hint(Some("solr")).contains("adopt --ensemble solr --fire"));
    }
}

proptest::proptest! {
    /// A process that only does what it should, and dies anywhere, never raises an alarm.
    #[test]
    fn no_death_of_ours_is_a_break(steps in proptest::collection::vec(0..3_u8, 1..60)) {
        let mut ledger = Memory::default();
        let mut znode: Option<FoundNode> = None;
        for died_after in steps {
            let read = znode.clone().map_or(Found::Absent, Found::Node);
            let verdict = judge(OURS, &ledger, read);
            proptest::prop_assert!(!matches!(verdict, Verdict::Broken(_)), "{verdict:?} {ledger:?}");
            ledger.mark += 1;
            if died_after == 0 {
                continue;
            }
            let place = znode.as_ref().map_or(Incarnation { czxid: 0x10, version: 0 }, |found| found.place);
            znode = Some(FoundNode { place, ..found(ledger.generation, OURS, ledger.mark, place.czxid) });
            if died_after == 1 {
                continue;
            }
            ledger.confirmed = Some(confirmed(ledger.generation, ledger.mark, place.czxid));
        }
    }
}

#[test]
fn an_ensemble_without_a_znode_store_is_known_by_where_it_is() {
    let at = Whereabouts::of;
    let known = |connect: &str| Memory { whereabouts: Some(at(connect)), ..memory(2, 0, None) };
    let moved = Break::Moved { before: at("a:1"), now: at("b:1") };
    for (case, memory, now, expected) in [
        ("it was never met", memory(0, 0, None), "a:1", Ok(true)),
        ("as it was", known("a:1"), "a:1", Ok(false)),
        ("one more server", known("a:1"), "a:1,b:1", Ok(true)),
        ("none of them", known("a:1"), "b:1", Err(moved.clone())),
    ] {
        assert_eq!(judge_whereabouts(&memory, &at(now)), expected, "{case}");
    }
    for decision in [Adopt::Fire, Adopt::Ignore] {
        let adopted = adoption(&known("a:1"), &moved, decision);
        assert_eq!(adopted.memory, Memory { generation: 3, whereabouts: Some(at("b:1")), ..memory(3, 0, None) });
        assert_eq!((adopted.cursors, adopted.zxids_end), (CursorsAfter::Begin(decision), true));
        assert_eq!(judge_whereabouts(&adopted.memory, &at("b:1")), Ok(false), "decided once");
    }
    let (message, hint) = (moved.describe("", "", &known("a:1")), moved.hint(Some("solr")));
    assert!(message.contains("a:1") && message.contains("b:1") && hint.contains("adopt --ensemble solr"), "{hint}");
}
