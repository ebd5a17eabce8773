//! Who takes part, and who leads: what members say of themselves in ZooKeeper, what the store says of
//! the leader, and what is seen of the home ensemble, put together.
//!
//! Pure, and shared by the API, by what forwards requests to the leader, and by the command, so that
//! all say the same. The store is believed about the lead, ZooKeeper about who is alive.

mod step;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::Lead;
use crate::store::model::{microseconds, optional_microseconds};
use crate::zookeeper::{Member, MemberCard};

/// How the home ensemble is seen from here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Home {
    /// There is none in the configuration: one member.
    #[default]
    None,
    /// No session yet.
    Connecting,
    /// There is a session: what is known of the members is up to date.
    Connected,
    /// There was a session, or none could be opened.
    Disconnected {
        /// Since when, as far as that is known.
        since: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// The servers refuse this member.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What is known of the members at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The member that looks; `None` for a command.
    pub own: Option<MemberCard>,
    /// Those that were live when the home ensemble was last seen.
    pub live: Vec<Member>,
    /// Who took the lead last; `None` before the store was read.
    pub lead: Option<Lead>,
    /// How the home ensemble is seen.
    pub home: Home,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// It took the lead last.
    Leader,
    /// It waits for its turn.
    Standby,
}

/// How a member stands to the home ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// It has a session.
    Connected,
    /// It has none: it is cut off, or gone. A leader that is cut off leads on until it is replaced.
    Absent,
    /// The home ensemble cannot be seen from here; this is what was known last.
    Unknown,
    /// No `[zookeeper]` is configured.
    None,
}

/// A member as the API and the command show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberOverview {
    /// Its place and its life, `host:port~life`.
    pub id: String,
    /// Where other members reach its API.
    pub url: Option<String>,
    /// The host's name.
    pub host: String,
    /// The process on that host; 0 if unknown.
    pub pid: u32,
    /// Its version of flowkeeper.
    pub version: String,
    /// The store that it writes to.
    pub store_id: String,
    /// Leader or standby.
    pub role: MemberRole,
    /// The epoch that it leads in; null for a standby.
    pub epoch: Option<i64>,
    /// Since when it leads; null for a standby.
    #[serde(serialize_with = "optional_microseconds")]
    pub since: Option<Timestamp>,
    /// When its process started.
    #[serde(serialize_with = "optional_microseconds")]
    pub started: Option<Timestamp>,
    /// How it stands to the home ensemble.
    pub session: SessionState,
    /// Which definitions it has.
    pub configuration_version: String,
    /// What is wrong with the newest ones, where it cannot take them; it leaves the lead to members that
    /// can.
    pub refuses: Option<String>,
    /// Since when it has them; null of a version that does not say.
    #[serde(serialize_with = "optional_microseconds")]
    pub configuration_since: Option<Timestamp>,
    /// How many schedules they have; null of a version that does not say.
    pub schedules: Option<usize>,
    /// For how long it has had other definitions than the leader, or, of the leader, for how long the
    /// oldest occurrence waits that came due and is not in the ledger; the longer of the two. 0 for a
    /// member that is in step, null where it does not say.
    pub lag_ms: Option<i64>,
    /// What is behind, for more than five seconds; null of a member that is in step.
    pub warning: Option<String>,
}

/// How the home ensemble was seen when the members were listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HomeOverview {
    /// `connected`, `connecting`, `disconnected`, `refused`, or `none` without `[zookeeper]`.
    pub state: String,
    /// Since when it cannot be seen; the list is what was known then.
    #[serde(serialize_with = "optional_microseconds")]
    pub since: Option<Timestamp>,
    /// Why it cannot be seen.
    pub reason: Option<String>,
}

/// All members, the leader first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberList {
    /// The members.
    pub items: Vec<MemberOverview>,
    /// Always null: members are few.
    pub next_cursor: Option<String>,
    /// How up to date it is.
    pub zookeeper: HomeOverview,
    /// When the list was made.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
}

/// What the store keeps of a leader: its card as JSON.
pub fn leader_text(card: &MemberCard) -> String {
    // A struct of text and numbers always has a JSON form.
    serde_json::to_string(card).unwrap_or_else(|_| card.id.clone())
}

impl Sight {
    /// The member that took the lead last, by its card in the store; before the store was read, the first
    /// in the queue.
    fn last_leader(&self) -> Option<MemberCard> {
        let Some(lead) = &self.lead else {
            return self.live.iter().find(|member| member.leads).map(|member| member.card.clone());
        };
        let text = lead.leader.as_deref()?;
        // The version before wrote a few words instead.
        Some(serde_json::from_str(text).unwrap_or_else(|_| MemberCard { id: text.to_owned(), ..MemberCard::default() }))
    }

    /// Whether a member was live when the home ensemble was last seen.
    pub fn is_live(&self, id: &str) -> bool {
        self.live.iter().any(|member| member.card.id == id)
    }

    /// Why requests cannot be passed on to `leader` at the address that it gives: it is one that leads back
    /// to this member.
    pub fn misleading(&self, leader: &MemberCard) -> Option<&'static str> {
        let own = self.own.as_ref()?;
        let url = leader.url.as_deref()?;
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let is_loopback = ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start));
        if own.url.as_deref() == Some(url) {
            Some("it is this member's own")
        } else if is_loopback && own.host != leader.host {
            Some("it is reached from its own host only")
        } else {
            None
        }
    }

    /// Another member that leads, as far as is known; `None` while a new one is being elected, and when
    /// nobody but this member has led. The store alone says where it is: callers' tokens go there, and znodes
    /// may be writable for strangers.
    pub fn leader_elsewhere(&self) -> Option<MemberCard> {
        self.lead.as_ref()?;
        let leader = self.last_leader()?;
        let is_own = self.own.as_ref().is_some_and(|own| own.id == leader.id);
        let is_gone = match self.home {
            Home::Connected => !self.is_live(&leader.id),
            // Its last word is all there is.
            Home::Connecting | Home::Disconnected { .. } | Home::Refused { .. } => false,
            Home::None => true,
        };
        (!is_own && !is_gone).then_some(leader)
    }

    /// All members: those that are live, the one that looks, and the last leader even if it is gone.
    pub fn list(&self, at: Timestamp) -> MemberList {
        let leader = self.last_leader();
        let mut cards: Vec<&MemberCard> = self.live.iter().map(|member| &member.card).collect();
        for card in self.own.iter().chain(&leader) {
            // Without a home ensemble there is one member; whoever led before it is no more.
            let counts = self.home != Home::None || self.own.as_ref().is_none_or(|own| own.id == card.id);
            if counts && cards.iter().all(|known| known.id != card.id) {
                cards.push(card);
            }
        }
        let leads = |card: &MemberCard| leader.as_ref().is_some_and(|leader| leader.id == card.id);
        // What the store keeps of a leader is from the beginning of its term.
        let is_told =
            |card: &MemberCard| self.is_live(&card.id) || self.own.as_ref().is_some_and(|own| own.id == card.id);
        let compared = cards.iter().copied().find(|card| leads(card) && is_told(card));
        let mut items: Vec<_> =
            cards.iter().map(|card| self.overview(card, leads(card), step::judge(card, compared, at))).collect();
        items.sort_by(|one, other| {
            (one.role != MemberRole::Leader, &one.id).cmp(&(other.role != MemberRole::Leader, &other.id))
        });
        MemberList { items, next_cursor: None, zookeeper: self.home.overview(), at }
    }

    fn overview(&self, card: &MemberCard, leads: bool, step: step::Step) -> MemberOverview {
        let lead = self.lead.as_ref().filter(|_| leads);
        let is_own = self.own.as_ref().is_some_and(|own| own.id == card.id);
        let session = match self.home {
            Home::None => SessionState::None,
            Home::Connected if self.is_live(&card.id) => SessionState::Connected,
            Home::Connected => SessionState::Absent,
            _ if is_own => SessionState::Absent,
            _ => SessionState::Unknown,
        };
        MemberOverview {
            id: card.id.clone(),
            url: card.url.clone(),
            host: card.host.clone(),
            pid: card.pid,
            version: card.version.clone(),
            store_id: card.store_id.clone(),
            role: if leads { MemberRole::Leader } else { MemberRole::Standby },
            epoch: lead.map(|lead| lead.epoch),
            since: lead.and_then(|lead| lead.since),
            started: card.started,
            session,
            configuration_version: card.configuration_version.clone(),
            refuses: card.refuses.clone(),
            configuration_since: card.configuration_since,
            schedules: card.schedules,
            lag_ms: step.lag.map(|lag| i64::try_from(lag.as_millis()).unwrap_or(i64::MAX)),
            warning: step.warning,
        }
    }
}

impl Home {
    fn overview(&self) -> HomeOverview {
        let (state, since, reason) = match self {
            Self::None => ("none", None, None),
            Self::Connecting => ("connecting", None, None),
            Self::Connected => ("connected", None, None),
            Self::Disconnected { since, reason } => ("disconnected", *since, Some(reason.clone())),
            Self::Refused { reason } => ("refused", None, Some(reason.clone())),
        };
        HomeOverview { state: state.to_owned(), since, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(id: &str) -> MemberCard {
        MemberCard { id: id.into(), url: Some(format!("http://{id}")), store_id: "s".into(), ..MemberCard::default() }
    }

    fn member(id: &str) -> Member {
        Member { card: card(id), leads: false }
    }

    fn lead(leader: Option<String>) -> Lead {
        Lead { epoch: 7, leader, since: Some(Timestamp::UNIX_EPOCH) }
    }

    fn gone() -> Home {
        Home::Disconnected { since: Some(Timestamp::UNIX_EPOCH), reason: "reset".into() }
    }

    #[test]
    fn requests_go_to_the_leader_that_the_store_names_while_it_may_be_alive() {
        let led_by = |id: &str| Some(lead(Some(leader_text(&card(id)))));
        let live = vec![member("me"), member("other")];
        let first = vec![member("me"), Member { leads: true, ..member("stranger") }];
        let cases = [
            ("another leads", live.clone(), led_by("other"), Home::Connected, Some("other")),
            ("its session is gone: another is being elected", live.clone(), led_by("dead"), Home::Connected, None),
            ("I led last", live.clone(), led_by("me"), Home::Connected, None),
            ("nobody ever led", live.clone(), Some(lead(None)), Home::Connected, None),
            ("the store was not read yet, and nobody is first", live.clone(), None, Home::Connected, None),
            ("the store was not read yet, and znodes name somebody", first.clone(), None, Home::Connected, None),
            ("the store names another than the znodes", first, led_by("other"), Home::Connected, None),
            ("without ZooKeeper the last word holds", live.clone(), led_by("other"), gone(), Some("other")),
            ("also when it was never seen", vec![], led_by("other"), Home::Connecting, Some("other")),
            ("one member", vec![], led_by("other"), Home::None, None),
        ];
        for (case, live, lead, home, expected) in cases {
            let sight = Sight { own: Some(card("me")), live, lead, home };
            assert_eq!(sight.leader_elsewhere().map(|leader| leader.id).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn an_address_that_leads_back_is_recognised() {
        let at = |url: &str, host: &str| MemberCard { url: Some(url.into()), host: host.into(), ..card("x") };
        let sight = |own: MemberCard| Sight { own: Some(own), ..Sight::default() };
        for (own, leader, misleads) in [
            (at("http://a:1", "a"), at("http://b:1", "b"), false),
            (at("http://127.0.0.1:1", "a"), at("http://127.0.0.1:2", "a"), false),
            (at("http://127.0.0.1:1", "a"), at("http://127.0.0.1:1", "b"), true),
            (at("http://a:1", "a"), at("http://127.0.0.1:2", "b"), true),
            (at("http://a:1", "a"), at("http://localhost:2", "b"), true),
            (at("http://a:1", "a"), at("http://a:1", "b"), true),
        ] {
            assert_eq!(sight(own.clone()).misleading(&leader).is_some(), misleads, "{own:?} {leader:?}");
        }
    }

    #[test]
    fn the_list_says_who_leads_and_how_sure_that_is() {
        let shown = |sight: &Sight| -> Vec<(String, MemberRole, Option<i64>, SessionState)> {
            let list = sight.list(Timestamp::UNIX_EPOCH);
            list.items.into_iter().map(|item| (item.id, item.role, item.epoch, item.session)).collect()
        };
        let (leader, standby) = (MemberRole::Leader, MemberRole::Standby);
        let led_by = |id: &str| Some(lead(Some(leader_text(&card(id)))));
        let mut sight = Sight {
            own: Some(card("me")),
            live: vec![member("me"), member("other")],
            lead: led_by("other"),
            home: Home::Connected,
        };
        let line = |id: &str, role, session| (id.to_owned(), role, (role == leader).then_some(7), session);
        assert_eq!(
            shown(&sight),
            [line("other", leader, SessionState::Connected), line("me", standby, SessionState::Connected)]
        );
        sight.home = gone();
        assert_eq!(
            shown(&sight),
            [line("other", leader, SessionState::Unknown), line("me", standby, SessionState::Absent)]
        );
        (sight.home, sight.lead) = (Home::Connected, led_by("cut-off"));
        assert_eq!(
            shown(&sight),
            [
                line("cut-off", leader, SessionState::Absent),
                line("me", standby, SessionState::Connected),
                line("other", standby, SessionState::Connected)
            ]
        );
        // One member, with and without it being asked; the version before wrote words.
        sight = Sight { own: Some(card("me")), live: vec![], lead: led_by("me"), home: Home::None };
        assert_eq!(shown(&sight), [line("me", leader, SessionState::None)]);
        sight.lead = led_by("my-last-life");
        assert_eq!(shown(&sight), [line("me", standby, SessionState::None)]);
        // The store cannot be read: ZooKeeper knows who is first in the queue.
        let first = Member { leads: true, ..member("other") };
        let queue = Sight { own: None, live: vec![member("me"), first], lead: None, home: Home::Connected };
        let list = queue.list(Timestamp::UNIX_EPOCH).items;
        assert_eq!((list[0].id.as_str(), list[0].role, list[0].epoch), ("other", leader, None));
        (sight.own, sight.lead) = (None, Some(lead(Some("127.0.0.1:8787 (process 7)".into()))));
        assert_eq!(shown(&sight), [line("127.0.0.1:8787 (process 7)", leader, SessionState::None)]);
    }
}
