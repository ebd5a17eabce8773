//! Members of one home ensemble: who is there, who is first, and what that survives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::zookeeper::{MemberCard, Membership, MembershipParts, Settings, Standing, member_id};
use tokio_util::sync::CancellationToken;
use zookeeper_client::Client;

use crate::support::world::wait_for;
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer};

/// A member, and the way to end it.
struct Participant {
    membership: Membership,
    id: String,
    shutdown: CancellationToken,
}

/// A member at this place, whose settings are these.
fn join_as(place: &str, settings: Settings, root: &str) -> Participant {
    let id = member_id(place);
    let card = MemberCard {
        id: id.clone(),
        url: Some(format!("http://{place}")),
        host: "host".into(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        store_id: "store".into(),
        configuration_version: "1".into(),
        started: None,
    };
    let parts = MembershipParts {
        settings: Arc::new(move || Ok(settings.clone())),
        root: root.into(),
        card,
        clock: Clock::system(),
    };
    let shutdown = CancellationToken::new();
    Participant { membership: Membership::start(parts, shutdown.clone()), id, shutdown }
}

fn settings(connect: &str) -> Settings {
    Settings { connect: connect.to_owned(), session_timeout: SESSION_TIMEOUT, auth: None, tls: None, sasl: None }
}

/// A member that stands for election.
fn join(place: &str, connect: &str, root: &str) -> Participant {
    let participant = join_as(place, settings(connect), root);
    participant.membership.stand(true);
    participant
}

impl Participant {
    fn standing(&self) -> Standing {
        self.membership.standing().borrow().clone()
    }

    async fn until(&self, what: impl Fn(&Standing) -> bool) -> Standing {
        let mut standing = self.membership.standing();
        let reached = tokio::time::timeout(Duration::from_secs(30), standing.wait_for(|standing| what(standing)));
        let reached = reached.await.unwrap_or_else(|_| panic!("{} stays {:?}", self.id, self.standing()));
        reached.expect("the member lives").clone()
    }

    async fn first(&self) {
        self.until(|standing| *standing == Standing::First).await;
    }

    async fn behind(&self, leader: &Participant) {
        self.until(|standing| *standing == Standing::Standby { leader: Some(leader.id.clone()) }).await;
    }

    /// Waits until it sees just these members, and this one leading.
    async fn sees(&self, members: &[&Participant], leader: Option<&Participant>) {
        let mut expected: Vec<_> = members.iter().map(|member| member.id.clone()).collect();
        expected.sort_unstable();
        let seen = || {
            let members = self.membership.members().borrow().clone();
            let ids: Vec<_> = members.iter().map(|member| member.card.id.clone()).collect();
            let leads: Vec<_> =
                members.iter().filter(|member| member.leads).map(|member| member.card.id.clone()).collect();
            (ids, leads)
        };
        let wanted = (expected, leader.iter().map(|leader| leader.id.clone()).collect::<Vec<_>>());
        wait_for(
            || async { (seen() == wanted).then_some(()) },
            || format!("{} sees {:?}, not {wanted:?}", self.id, seen()),
        )
        .await;
    }
}

/// Names in the queue, in order, with whose they are.
async fn queue(client: &Client, root: &str) -> Vec<(String, String)> {
    let mut names = client.list_children(&format!("{root}/leader")).await.expect("the queue is listed");
    names.sort_unstable_by_key(|name| name[name.len() - 10..].to_owned());
    let mut queue = Vec::new();
    for name in names {
        if let Ok((data, _)) = client.get_data(&format!("{root}/leader/{name}")).await {
            queue.push((name, String::from_utf8(data).expect("an id")));
        }
    }
    queue
}

#[tokio::test]
async fn members_lead_in_the_order_in_which_they_stood_up() {
    let server = ZooKeeperServer::shared().await;
    let (client, root) = (server.client().await, "/election-order");
    let one = join("one:1", &server.connect(), root);
    one.first().await;
    let two = join("two:1", &server.connect(), root);
    two.behind(&one).await;
    let three = join("three:1", &server.connect(), root);
    three.behind(&one).await;
    for member in [&one, &two, &three] {
        member.sees(&[&one, &two, &three], Some(&one)).await;
    }
    assert!(one.membership.confirm_first().await.expect("an answer"));
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
    assert!(handed_over < Duration::from_millis(300), "{handed_over:?}");
    three.behind(&two).await;
    three.sees(&[&two, &three], Some(&two)).await;
    two.membership.leave().await;
    three.first().await;
    three.sees(&[&three], Some(&three)).await;
    three.shutdown.cancel();
}
