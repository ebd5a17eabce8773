//! Members of one home ensemble: who is there, who is first, and what that survives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::zookeeper::{Ensemble, Settings, SettingsSource, Standing};
use tokio_util::sync::CancellationToken;
use zookeeper_client::Client;

use crate::support::ensemble::{SERVERS, ZooKeeperEnsemble};
use crate::support::participant::{Participant, join_as, queue};
use crate::support::proxy::{CREATE, Proxy, SYNC};
use crate::support::world::{PATIENCE, wait_for};
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer, create, delete};

/// Of sessions that are not to end by themselves, whatever else this machine does.
const LASTING: Duration = Duration::from_secs(40);

/// Less than what is left of such a session at any time: what takes no longer has not waited for its end.
const UNTIL_IT_ENDS: Duration = Duration::from_secs(20);

fn settings(connect: &str, session_timeout: Duration) -> SettingsSource {
    let connect = connect.to_owned();
    Arc::new(move || {
        let connect = connect.clone();
        Ok(Settings { connect, session_timeout, auth: None, tls: None, sasl: None })
    })
}

/// A member that stands for election, in a session that lasts.
fn join(place: &str, connect: &str, root: &str) -> Participant {
    join_for(LASTING, place, connect, root)
}

/// The same in a session that ends after this time of silence.
fn join_for(session_timeout: Duration, place: &str, connect: &str, root: &str) -> Participant {
    let participant = join_as(place, settings(connect, session_timeout), root);
    participant.membership.stand(true);
    participant
}

/// A member that is first and one that is next, each with its own way to the ensemble.
async fn first_and_next(one: &str, two: &str, root: &str) -> (Participant, Participant) {
    first_and_next_for(LASTING, one, two, root).await
}

/// The same in sessions that end after this time of silence.
async fn first_and_next_for(session_timeout: Duration, one: &str, two: &str, root: &str) -> (Participant, Participant) {
    let one = join_for(session_timeout, "one:1", one, root);
    one.first().await;
    let two = join_for(session_timeout, "two:1", two, root);
    two.behind(&one).await;
    (one, two)
}

async fn is_disconnected(member: &Participant) {
    member.until(|standing| matches!(standing, Standing::Disconnected { .. })).await;
}

/// Waits until so many stand in the queue.
async fn queued(client: &Client, root: &str, count: usize) {
    let enough = || async { (queue(client, root).await.len() == count).then_some(()) };
    wait_for(enough, || format!("there are not {count} in the queue of {root}")).await;
}

#[tokio::test]
async fn members_lead_in_the_order_in_which_they_stood_up() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-order");
    let (one, two) = first_and_next(&server.connect(), &server.connect(), root).await;
    let three = join("three:1", &server.connect(), root);
    three.behind(&one).await;
    for member in [&one, &two, &three] {
        member.sees(&[&one, &two, &three], Some(&one)).await;
    }
    one.is_confirmed_first().await;
    assert!(!two.membership.confirm_first().await.expect("an answer"));

    // The layout of Curator's LeaderLatch: name, number, the participant's id as data.
    for ((name, participant), member) in queue(&client, root).await.iter().zip([&one, &two, &three]) {
        let guid = name.strip_prefix("_c_").and_then(|name| name.get(..36)).expect("a guid");
        assert!(uuid::Uuid::parse_str(guid).is_ok() && name[39..].starts_with("-latch-"), "{name}");
        assert_eq!(*participant, member.id);
    }

    let begun = Instant::now();
    one.membership.leave().await;
    let left = begun.elapsed();
    two.first().await;
    let handed_over = begun.elapsed();
    println!("left after {left:?}, handed over after {handed_over:?}");
    assert!(handed_over < UNTIL_IT_ENDS, "its session was waited for: {handed_over:?}");
    three.behind(&two).await;
    three.sees(&[&two, &three], Some(&two)).await;
    two.membership.leave().await;
    three.first().await;
    three.sees(&[&three], Some(&three)).await;
    three.shutdown.cancel();
}

#[tokio::test]
async fn who_withdraws_and_stands_again_is_last() {
    let server = ZooKeeperServer::shared().await;
    let root = "/election-withdraw";
    let (one, two) = first_and_next(&server.connect(), &server.connect(), root).await;
    // Both in one breath, as after a refused epoch.
    one.membership.stand(false);
    assert_ne!(one.standing(), Standing::First);
    one.membership.stand(true);
    assert!(!one.membership.confirm_first().await.expect("an answer"));
    two.first().await;
    one.behind(&two).await;
    // For good.
    two.membership.stand(false);
    one.first().await;
    two.behind(&one).await;
    one.sees(&[&one, &two], Some(&one)).await;
    one.membership.stand(false);
    one.until(|standing| *standing == Standing::Standby { leader: None }).await;
    one.sees(&[&one, &two], None).await;
}

#[tokio::test]
async fn of_ten_that_stand_up_at_once_one_is_first_at_any_time() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-crowd");
    let mut members: Vec<_> = (0..10).map(|at| join(&format!("m{at}:1"), &server.connect(), root)).collect();
    for member in &members {
        member.until(|standing| matches!(standing, Standing::First | Standing::Standby { leader: Some(_) })).await;
    }
    queued(&client, root, 10).await;
    while !members.is_empty() {
        let queue = queue(&client, root).await;
        assert_eq!(queue.len(), members.len(), "{queue:?}");
        let (name, leader) = queue.first().expect("somebody queues").clone();
        let at = members.iter().position(|member| member.id == leader).expect("a member");
        members[at].first().await;
        for member in members.iter().filter(|member| member.id != leader) {
            assert!(!member.membership.confirm_first().await.expect("an answer"), "{} beside {name}", member.id);
            member.behind(&members[at]).await;
        }
        members.remove(at).membership.leave().await;
    }
    assert!(client.list_children(&format!("{root}/members")).await.expect("the members are listed").is_empty());
}

#[tokio::test]
async fn a_cut_that_is_shorter_than_the_session_costs_nobody_its_place() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-cut");
    let proxy = Proxy::start(&server.connect()).await;
    let (one, two) = first_and_next(&proxy.connect(), &server.connect(), root).await;
    let before = queue(&client, root).await;
    let card = |member: &Participant| format!("{root}/members/{}", member.id);
    let (_, card_before) = client.get_data(&card(&one)).await.expect("a card");

    for _ in 0..3 {
        // A reset so short that only its traces show.
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(100)).await;
        one.is_confirmed_first().await;
    }
    // Nobody but the member itself has taken its session up again.
    assert_eq!(proxy.connect_requests(), 4);
    proxy.refuse(true);
    is_disconnected(&one).await;
    assert!(one.membership.confirm_first().await.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.refuse(false);
    one.is_confirmed_first().await;
    // A network that lets nothing through and keeps the connection.
    proxy.freeze(true);
    is_disconnected(&one).await;
    proxy.freeze(false);
    one.is_confirmed_first().await;

    assert_eq!(queue(&client, root).await, before);
    let (_, card_after) = client.get_data(&card(&one)).await.expect("a card");
    assert_eq!((card_after.czxid, card_after.ephemeral_owner), (card_before.czxid, card_before.ephemeral_owner));
    assert_eq!(two.standing(), Standing::Standby { leader: Some(one.id.clone()) });
}

#[tokio::test]
async fn after_a_cut_that_outlasts_the_session_a_member_queues_anew() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-expired");
    let proxy = Proxy::start(&server.connect()).await;
    let (one, two) = first_and_next_for(SESSION_TIMEOUT, &proxy.connect(), &server.connect(), root).await;

    proxy.refuse(true);
    let cut = Instant::now();
    two.first().await;
    println!("took over {:?} after the cut", cut.elapsed());
    two.sees(&[&two], Some(&two)).await;
    proxy.refuse(false);
    one.behind(&two).await;
    for member in [&one, &two] {
        member.sees(&[&one, &two], Some(&two)).await;
    }
    assert_eq!(queue(&client, root).await.len(), 2);
}

#[tokio::test]
async fn the_next_process_at_a_place_clears_away_what_a_killed_one_left() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-killed");
    // No word of the process arrives any more, as after SIGKILL.
    let proxy = Proxy::start(&server.connect()).await;
    let killed = join("one:1", &proxy.connect(), root);
    killed.first().await;
    let other = join("two:1", &server.connect(), root);
    other.behind(&killed).await;
    proxy.refuse(true);
    let begun = Instant::now();
    let next = join("one:1", &server.connect(), root);
    other.first().await;
    next.behind(&other).await;
    next.sees(&[&next, &other], Some(&other)).await;
    assert!(begun.elapsed() < UNTIL_IT_ENDS, "its session was waited for: {:?}", begun.elapsed());
    let participants: Vec<_> = queue(&client, root).await.into_iter().map(|(_, participant)| participant).collect();
    assert_eq!(participants, [other.id.clone(), next.id.clone()]);
    // Two live members that claim one place push each other out once, not for ever.
    proxy.refuse(false);
    killed.behind(&other).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(queue(&client, root).await.len(), 3);
    other.sees(&[&killed, &next, &other], Some(&other)).await;
}

#[tokio::test]
async fn an_outage_of_the_whole_ensemble_ends_with_one_place_each() {
    let server = ZooKeeperServer::start().await;
    let root = "/flowkeeper";
    let session = SESSION_TIMEOUT * 2;
    let (one, two) = first_and_next_for(session, &server.connect(), &server.connect(), root).await;
    let before = queue(&server.client().await, root).await;
    server.kill();
    is_disconnected(&one).await;
    tokio::time::sleep(session).await;
    server.restart().await;
    // The servers come back with the sessions that they had, and so do the members.
    one.first().await;
    two.behind(&one).await;
    let client = server.client().await;
    assert_eq!(queue(&client, root).await, before);
    for member in [&one, &two] {
        member.sees(&[&one, &two], Some(&one)).await;
    }

    // Rebuilt: nobody knows them.
    drop(client);
    server.wipe().await;
    let standing = |standing: &Standing| matches!(standing, Standing::First | Standing::Standby { leader: Some(_) });
    one.until(standing).await;
    two.until(standing).await;
    let client = server.client().await;
    queued(&client, root, 2).await;
    assert_ne!(queue(&client, root).await, before);
}

#[tokio::test]
async fn a_server_that_is_frozen_is_noticed_and_nobody_queues_twice() {
    let server = ZooKeeperServer::start().await;
    let root = "/flowkeeper";
    let (one, two) = first_and_next_for(SESSION_TIMEOUT, &server.connect(), &server.connect(), root).await;
    server.freeze(true);
    // Neither waits for an answer: none comes until the server goes on.
    is_disconnected(&one).await;
    two.membership.leave().await;
    tokio::time::sleep(SESSION_TIMEOUT * 2).await;
    server.freeze(false);
    one.first().await;
    let client = server.client().await;
    wait_for(
        || async {
            let participants: Vec<_> = queue(&client, root).await.into_iter().map(|(_, id)| id).collect();
            (participants == [one.id.clone()]).then_some(())
        },
        || "one does not queue alone".into(),
    )
    .await;
}

#[tokio::test]
async fn a_place_whose_making_was_not_answered_is_found_and_not_made_twice() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-unanswered");
    let proxy = Proxy::start(&server.connect()).await;
    let one = join_as("one:1", settings(&proxy.connect(), LASTING), root);
    one.sees(&[&one], None).await;
    proxy.lose_answer_to(CREATE);
    one.membership.stand(true);
    one.first().await;
    assert!(proxy.has_lost_answer());
    let queue = queue(&client, root).await;
    assert_eq!(queue.len(), 1, "{queue:?}");
    assert!(queue[0].0.ends_with("-latch-0000000000"), "{queue:?}");
}

#[tokio::test]
async fn a_new_session_whose_first_request_was_not_answered_is_still_a_new_one() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-new-session");
    let proxy = Proxy::start(&server.connect()).await;
    let one = join_for(SESSION_TIMEOUT, "one:1", &proxy.connect(), root);
    one.first().await;
    let before = queue(&client, root).await;
    proxy.refuse(true);
    queued(&client, root, 0).await;
    proxy.lose_answer_to(SYNC);
    proxy.refuse(false);
    one.first().await;
    assert!(proxy.has_lost_answer());
    let after = queue(&client, root).await;
    assert_eq!((before.len(), after.len()), (1, 1), "{after:?}");
    let guid = |queue: &[(String, String)]| queue[0].0["_c_".len()..].split("-latch-").next().map(ToOwned::to_owned);
    assert_ne!(guid(&after), guid(&before), "what an earlier session made is not recognised as its own");
}

#[tokio::test]
async fn a_task_that_panics_is_told() {
    let source: SettingsSource = Arc::new(|| panic!("the settings are cursed"));
    let one = join_as("one:1", Arc::clone(&source), "/election-panic");
    assert!(one.membership.vigil().panicked().await.contains("the settings are cursed"));
    // Whoever waits for it is not held up.
    one.membership.leave().await;
    let ensemble = Ensemble::start(None, source, Clock::system(), CancellationToken::new());
    assert!(ensemble.vigil().panicked().await.contains("the settings are cursed"));
}

#[tokio::test]
async fn a_watch_that_is_lost_is_not_missed() {
    let server = ZooKeeperServer::shared().await;
    let root = "/election-mute";
    let proxy = Proxy::start(&server.connect()).await;
    proxy.mute_watches(true);
    let (one, two) = first_and_next(&server.connect(), &proxy.connect(), root).await;
    one.membership.leave().await;
    two.first().await;
    two.sees(&[&two], Some(&two)).await;
}

#[tokio::test]
async fn what_somebody_deletes_is_made_again() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-deleted");
    let (one, two) = first_and_next(&server.connect(), &server.connect(), root).await;
    let place = queue(&client, root).await[0].0.clone();
    delete(&client, &format!("{root}/leader/{place}")).await;
    two.first().await;
    one.behind(&two).await;
    delete(&client, &format!("{root}/members/{}", one.id)).await;
    wait_for(
        || async { client.check_stat(&format!("{root}/members/{}", one.id)).await.expect("a stat").map(drop) },
        || "the card is not made again".into(),
    )
    .await;
}

#[tokio::test]
async fn strangers_in_the_queue_and_cards_of_rubbish_do_no_harm() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-strangers");
    create(&client, root, b"").await;
    for parent in ["leader", "members"] {
        create(&client, &format!("{root}/{parent}"), b"").await;
    }
    create(&client, &format!("{root}/leader/notes"), b"not a contender").await;
    create(&client, &format!("{root}/members/rubbish"), b"{{{").await;
    let stranger = format!("{root}/leader/_c_5e1c4b1e-0d6f-4a52-8a6c-0f4d0a5c1c11-latch-0000000000");
    create(&client, &stranger, b"\xff\xfe").await;
    let one = join("one:1", &server.connect(), root);
    one.until(|standing| *standing == Standing::Standby { leader: None }).await;
    one.sees(&[&one], None).await;
    delete(&client, &stranger).await;
    one.first().await;
    one.membership.update(|card| {
        card.id = "somebody else".into();
        card.configuration_version = "2".into();
    });
    let mut members = one.membership.members();
    let told = members.wait_for(|members| members.iter().any(|member| member.card.configuration_version == "2"));
    let told = tokio::time::timeout(PATIENCE, told).await.expect("the card is read again");
    assert_eq!(told.expect("the member lives")[0].card.id, one.id);
}

#[tokio::test]
async fn a_session_goes_on_at_another_server_when_its_own_dies() {
    let ensemble = ZooKeeperEnsemble::start(Duration::from_millis(500)).await;
    let root = "/flowkeeper";
    let (one, two) = first_and_next(&ensemble.connect(), &ensemble.connect(), root).await;
    let before = queue(&ensemble.client().await, root).await;
    for server in 0..SERVERS {
        ensemble.kill(server);
        // Long enough for an election of the servers, short against the session.
        tokio::time::sleep(Duration::from_secs(1)).await;
        one.is_confirmed_first().await;
        two.behind(&one).await;
        ensemble.restart(server).await;
    }
    assert_eq!(queue(&ensemble.client().await, root).await, before);
}
