use super::*;

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

fn standing(text: &str) -> (ScheduleName, Known) {
    // `b<a` was `a` before, `~b` rests, `-b` has ended.
    let (standing, text) = match text.split_at(1) {
        ("~", rest) => (Standing::Rests, rest),
        ("-", rest) => (Standing::Ended, rest),
        _ => (Standing::InForce, text),
    };
    let mut names = text.split('<').map(name);
    (names.next().unwrap(), Known { standing, former: names.collect() })
}

/// `c<b<a` is `c` with `was = ["b", "a"]`.
fn decide(known: &[&str], after: &[&str], leaving: Leaving) -> Fates {
    let after: Vec<_> = after
        .iter()
        .map(|text| {
            let mut names = text.split('<').map(name);
            (names.next().unwrap(), names.collect::<Vec<_>>())
        })
        .collect();
    let known = known.iter().map(|text| standing(text)).collect();
    Fates::decide(&known, after.iter().map(|(name, was)| (name, &**was)), leaving)
}

/// In words, in the order of the names.
fn told(fates: &Fates) -> Vec<String> {
    let origin = |(name, origin): (&ScheduleName, &Origin)| match origin {
        Origin::Begins => format!("{name} begins"),
        Origin::GoesOn => format!("{name} goes on"),
        Origin::Renamed(from) => format!("{name} was {from}"),
        Origin::TakenBack(from) => format!("{name} back from {from}"),
    };
    let departure = |(name, departure): (&ScheduleName, &Departure)| match departure {
        Departure::To(_) => None,
        Departure::Rests => Some(format!("{name} rests")),
        Departure::Ends => Some(format!("{name} ends")),
    };
    let mut told: Vec<String> =
        fates.origins.iter().map(origin).chain(fates.departures.iter().filter_map(departure)).collect();
    told.sort_unstable();
    told
}

type Names = &'static [&'static str];

#[test]
fn each_name_has_one_fate() {
    use Leaving::{Ends, Rests};
    // What is known, the next set, and what becomes of it.
    let cases: &[(&str, Names, Names, Leaving, Names)] = &[
        ("nothing changes", &["a"], &["a"], Ends, &["a goes on"]),
        ("a new one", &["a"], &["a", "b"], Ends, &["a goes on", "b begins"]),
        ("removed", &["a"], &[], Ends, &["a ends"]),
        ("merely missing at the next leader", &["a"], &[], Rests, &["a rests"]),
        ("what rests is left alone", &["~a"], &[], Ends, &[]),
        ("what rests comes back", &["~a"], &["a"], Ends, &["a goes on"]),
        ("deleted and made again", &["-a"], &["a"], Ends, &["a begins"]),
        // Renames.
        ("renamed", &["a"], &["b<a"], Ends, &["b was a"]),
        ("renamed at the next leader", &["a"], &["b<a"], Rests, &["b was a"]),
        ("renamed, and nothing was there", &[], &["b<a"], Ends, &["b begins"]),
        ("it stays written", &["b<a"], &["b<a"], Ends, &["b goes on"]),
        ("it stays written, and was carried out before that was remembered", &["b"], &["b<a"], Ends, &["b goes on"]),
        (
            "the same once more, from another that had the old name meanwhile",
            &["a", "b<a"],
            &["b<a"],
            Ends,
            &["b ends", "b was a"],
        ),
        ("of two that rest the one that was the other", &["~a", "~b<a"], &["b<a"], Ends, &["b goes on"]),
        ("once more, and back", &["b<a"], &["a<b"], Ends, &["a was b"]),
        ("what rests is renamed", &["~a"], &["b<a"], Ends, &["b was a"]),
        ("what has ended is renamed, with its pause", &["-a"], &["b<a"], Ends, &["b was a"]),
        ("the old name is still there", &["a"], &["a", "b<a"], Ends, &["a goes on", "b begins"]),
        ("the name of one that is removed", &["a", "b"], &["b<a"], Ends, &["b ends", "b was a"]),
        ("the same at the next leader", &["a", "b"], &["b<a"], Rests, &["b ends", "b was a"]),
        ("the name of one that rests", &["a", "~b"], &["b<a"], Ends, &["b was a"]),
        ("the name of one that has ended", &["a", "-b"], &["b<a"], Ends, &["b was a"]),
        ("what rests takes no name that is in force", &["~a", "b"], &["b<a"], Ends, &["b goes on"]),
        ("what has ended takes no name from what rests", &["-a", "~b"], &["b<a"], Ends, &["b goes on"]),
        ("two say that they were the same", &["a"], &["b<a", "c<a"], Ends, &["b was a", "c begins"]),
        ("two at once", &["a", "b"], &["c<a", "d<b"], Ends, &["c was a", "d was b"]),
        (
            "names that are swapped at once stay where they are",
            &["a", "b"],
            &["a<b", "b<a"],
            Ends,
            &["a goes on", "b goes on"],
        ),
        (
            "a chain at once: only the end of it is free",
            &["a", "b"],
            &["b<a", "c<b"],
            Ends,
            &["b ends", "b was a", "c begins"],
        ),
        // Renamed several times, and not all of it was seen.
        ("twice, without the set in between", &["a"], &["c<b<a"], Ends, &["c was a"]),
        ("at the next leader", &["a"], &["c<b<a"], Rests, &["c was a"]),
        ("with it", &["b<a"], &["c<b<a"], Ends, &["c was b"]),
        ("it stays written, after both", &["c<b<a"], &["c<b<a"], Ends, &["c goes on"]),
        ("what rests", &["~a"], &["c<b<a"], Ends, &["c was a"]),
        ("of two that are in force the latest", &["a", "b"], &["c<b<a"], Ends, &["a ends", "c was b"]),
        ("the one in force rather than one that rests", &["a", "~b"], &["c<b<a"], Ends, &["c was a"]),
        ("or of which a pause is left", &["a", "-b"], &["c<b<a"], Ends, &["c was a"]),
        ("the one that rests rather than that", &["~a", "-b"], &["c<b<a"], Ends, &["c was a"]),
        ("not one that is still there", &["a", "b"], &["b", "c<b<a"], Ends, &["b goes on", "c was a"]),
        ("nor one that has passed on to another", &["a", "b"], &["c<b", "d<b<a"], Ends, &["c was b", "d was a"]),
        (
            "of two that rest, of which one was this one in between",
            &["~a", "~b", "c<b<a"],
            &["c<b<a"],
            Ends,
            &["c goes on"],
        ),
        ("rolled back to the set in between, which never was in force", &["c<b<a"], &["b<a"], Ends, &["b back from c"]),
        ("and further", &["c<b<a"], &["a"], Ends, &["a back from c"]),
        // Back again.
        ("a rename that is rolled back", &["b<a"], &["a"], Ends, &["a back from b"]),
        ("by the next leader", &["b<a"], &["a"], Rests, &["a back from b"]),
        ("after a leader without either", &["~b<a"], &["a"], Rests, &["a back from b"]),
        ("and forth again, though `was` is written no more", &["a<b"], &["b"], Ends, &["b back from a"]),
        ("over several renames", &["c<b<a"], &["a"], Ends, &["a back from c"]),
        ("to one in the middle", &["c<b<a"], &["b"], Ends, &["b back from c"]),
        ("but not from one that stays", &["b<a"], &["a", "b"], Ends, &["a begins", "b goes on"]),
        ("nor from one that was removed", &["-b<a"], &["a"], Ends, &["a begins"]),
        ("nor by one that has its own", &["a", "b<a"], &["a"], Ends, &["a goes on", "b ends"]),
        ("nor by one whose own rests", &["~a", "b<a"], &["a"], Ends, &["a goes on", "b ends"]),
        (
            "of what has ended only the pause was left, which this one has, too",
            &["-a", "b<a"],
            &["a"],
            Ends,
            &["a back from b"],
        ),
        ("`was` says something else", &["b<a", "x"], &["a<x"], Ends, &["a was x", "b ends"]),
        ("and somebody else goes on from it", &["b<a"], &["a", "c<b"], Ends, &["a begins", "c was b"]),
        ("of two that had the name the one in force", &["~b<a", "c<x<a"], &["a"], Ends, &["a back from c"]),
        ("of two in force the one that had it last", &["b<x<a", "c<a"], &["a"], Ends, &["a back from c", "b ends"]),
        ("one for one", &["c<b<a"], &["a", "b"], Ends, &["a back from c", "b begins"]),
    ];
    for (case, known, after, leaving, expected) in cases {
        assert_eq!(told(&decide(known, after, *leaving)), *expected, "{case}");
    }
}

#[test]
fn what_is_known_is_found_by_both_names() {
    let fates = decide(&["a", "b", "c", "d", "~e"], &["b<a", "c", "f<e", "g"], Leaving::Ends);
    let as_before: Vec<_> =
        ["b", "c", "f", "g"].map(|text| fates.known_as(&name(text)).map(ToString::to_string)).into();
    assert_eq!(as_before, [Some("a".into()), Some("c".into()), Some("e".into()), None]);
    let from_now_on: Vec<_> =
        ["a", "b", "c", "d", "e", "g"].map(|text| fates.goes_on_as(&name(text)).map(ToString::to_string)).into();
    assert_eq!(from_now_on, [Some("b".into()), None, Some("c".into()), None, Some("f".into()), None]);
    assert!(fates.is_taken(&name("b")) && !fates.is_taken(&name("f")) && !fates.is_taken(&name("c")));
    let states = ["a", "b", "c", "d", "e"].map(|text| (name(text), text)).into();
    let mut carried: Vec<_> =
        fates.carried(&states).into_iter().map(|(name, state)| format!("{name}:{state}")).collect();
    carried.sort_unstable();
    assert_eq!(carried, ["b:a", "c:c", "f:e"]);
}

#[test]
fn whoever_is_renamed_remembers_what_it_was() {
    let names = |texts: &[&str]| -> Vec<ScheduleName> { texts.iter().map(|text| name(text)).collect() };
    for (case, from, former, was, to, expected) in [
        ("once", "a", names(&[]), names(&["a"]), "b", names(&["a"])),
        ("twice", "b", names(&["a"]), names(&["b"]), "c", names(&["b", "a"])),
        ("not what it is", "b", names(&["a"]), names(&[]), "a", names(&["b"])),
        ("also what it was in between", "a", names(&["x"]), names(&["b", "a"]), "c", names(&["b", "a", "x"])),
        ("each once", "b", names(&["a"]), names(&["b", "a"]), "c", names(&["b", "a"])),
        ("not what the set tells of somebody else", "c", names(&["b", "a"]), names(&["x"]), "a", names(&["c", "b"])),
    ] {
        assert_eq!(former_names(&name(from), &former, &was, &name(to)), expected, "{case}");
    }
    let many: Vec<_> = (0..20).map(|n| name(&format!("n{n}"))).collect();
    assert_eq!(former_names(&name("a"), &many, &[], &name("b")).len(), FORMER_NAMES);
}

#[test]
fn names_are_passed_on_over_sets_that_may_never_have_been_in_force() {
    type Set = Vec<(ScheduleName, Vec<ScheduleName>)>;
    let set = |texts: &[&str]| -> Set {
        let schedule = |text: &&str| {
            let mut names = text.split('<').map(name);
            (names.next().unwrap(), names.collect())
        };
        texts.iter().map(schedule).collect()
    };
    let passed_on = |before: &[&str], after: &[&str]| -> Set {
        let (before, mut after) = (set(before), set(after));
        let told = {
            let before = before.iter().map(|(name, was)| (name, &**was));
            names_passed_on(before, after.iter().map(|(name, was)| (name, &**was)))
        };
        for (name, was) in &mut after {
            was.extend(told.get(name).cloned().unwrap_or_default());
        }
        after
    };
    let cases: &[(&str, Names, Names, Names)] = &[
        ("nothing was renamed", &["a"], &["a", "b"], &["a", "b"]),
        ("renamed once", &["a"], &["b<a"], &["b<a"]),
        ("renamed once more", &["b<a"], &["c<b"], &["c<b<a"]),
        ("and once more", &["c<b<a"], &["d<c"], &["d<c<b<a"]),
        ("edited in another way after that", &["c<b<a"], &["c<b"], &["c<b<a"]),
        ("it is written no more", &["c<b<a"], &["c"], &["c<b<a"]),
        ("somebody else has one of the names", &["c<b<a"], &["c<b", "a"], &["c<b", "a"]),
        ("or had it", &["c<b<a"], &["c<b", "d<a"], &["c<b", "d<a"]),
        ("rolled back", &["c<b<a"], &["b<a"], &["b<a"]),
        ("removed", &["b<a"], &["x"], &["x"]),
    ];
    for (case, before, after, expected) in cases {
        assert_eq!(passed_on(before, after), set(expected), "{case}");
    }
    assert_eq!(passed_on(&["y<a<b<c<d<e<f<g<h"], &["z<y"])[0].1.len(), FORMER_NAMES, "as many as are remembered");
}

#[test]
fn a_rule_is_told_from_another() {
    let cron = |text: &str| format!("cron|{text}|UTC|Shift|First");
    let znode = |place: &str, on: &str| format!("znode  {place} Node created {on}");
    for (before, after, expected) in [
        (cron("@daily"), cron("@daily"), Rule::Same),
        (cron("@daily"), cron("0 0 * * *"), Rule::Respelled),
        (cron("@daily"), cron("@daily") + "|1000", Rule::Respelled),
        (cron("@daily"), cron("@hourly"), Rule::Other),
        (znode("/a", "true"), znode("/a", "false"), Rule::SamePlace),
        (znode("/a", "true"), znode("/b", "true"), Rule::Other),
        (cron("@daily"), znode("/a", "true"), Rule::Other),
        (String::new(), cron("@daily"), Rule::Other),
    ] {
        assert_eq!(Rule::between(&before, &after), expected, "{before} {after}");
        assert_eq!(expected.is_edited(), matches!(expected, Rule::SamePlace | Rule::Other));
    }
}
