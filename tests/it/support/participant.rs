//! Members of a home ensemble, without the rest of flowkeeper.

use flowkeeper::clock::Clock;
use flowkeeper::zookeeper::{MemberCard, Membership, MembershipParts, SettingsSource, Standing, member_id};
use tokio_util::sync::CancellationToken;
use zookeeper_client::Client;

use super::world::{PATIENCE, wait_for};

/// A member, and the way to end it.
pub(crate) struct Participant {
    pub(crate) membership: Membership,
    pub(crate) id: String,
    pub(crate) shutdown: CancellationToken,
}

/// A member at this place, whose settings are these.
pub(crate) fn join_as(place: &str, settings: SettingsSource, root: &str) -> Participant {
    let id = member_id(place);
    let card = MemberCard {
        id: id.clone(),
        url: Some(format!("http://{place}")),
        host: "host".into(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        store_id: "store".into(),
        store_url: "sqlite://ledger.db".into(),
        configuration_version: "1".into(),
        ..MemberCard::default()
    };
    let parts = MembershipParts { settings, root: root.into(), card, clock: Clock::system() };
    let shutdown = CancellationToken::new();
    Participant { membership: Membership::start(parts, shutdown.clone()), id, shutdown }
}

impl Participant {
    pub(crate) fn standing(&self) -> Standing {
        self.membership.standing().borrow().clone()
    }

    pub(crate) async fn until(&self, what: impl Fn(&Standing) -> bool) -> Standing {
        let mut standing = self.membership.standing();
        let reached = tokio::time::timeout(PATIENCE, standing.wait_for(|standing| what(standing)));
        let reached = reached.await.unwrap_or_else(|_| panic!("{} stays {:?}", self.id, self.standing()));
        reached.expect("the member lives").clone()
    }

    pub(crate) async fn first(&self) {
        self.until(|standing| *standing == Standing::First).await;
    }

    /// Waits until the servers say that it is first: what it stands as may be from before a cut.
    pub(crate) async fn is_confirmed_first(&self) {
        let ask = || async { self.membership.confirm_first().await.ok().filter(|first| *first) };
        wait_for(ask, || format!("{} is not first: {:?}", self.id, self.standing())).await;
    }

    pub(crate) async fn behind(&self, leader: &Participant) {
        self.until(|standing| *standing == Standing::Standby { leader: Some(leader.id.clone()) }).await;
    }

    /// Waits until it sees just these members, and this one leading.
    pub(crate) async fn sees(&self, members: &[&Participant], leader: Option<&Participant>) {
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
pub(crate) async fn queue(client: &Client, root: &str) -> Vec<(String, String)> {
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
