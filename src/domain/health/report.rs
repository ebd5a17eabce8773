//! What a judgement says.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::catalogue::Check;
use super::threshold::{Limits, Thresholds, plain_number};

/// What is thought of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
    /// It does not exist here: of an observer, of a server alone, of ClickHouse Keeper.
    NotApplicable,
    /// It could not be found out. Never a zero.
    Unknown,
}

impl Verdict {
    /// The spelling of the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::NotApplicable => "not_applicable",
            Self::Unknown => "unknown",
        }
    }

    /// The opposite of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Ok, Self::Warning, Self::Critical, Self::NotApplicable, Self::Unknown];
        all.into_iter().find(|verdict| verdict.as_str() == text)
    }

    /// Whether something is to be done.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Warning | Self::Critical)
    }

    /// The one to tell of several: what is known to be bad comes before what is not known.
    fn weight(self) -> u8 {
        match self {
            Self::NotApplicable => 0,
            Self::Ok => 1,
            Self::Unknown => 2,
            Self::Warning => 3,
            Self::Critical => 4,
        }
    }

    /// The verdict on several things together; `None` on nothing.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Option<Self> {
        verdicts.into_iter().max_by_key(|verdict| verdict.weight())
    }
}

/// One judgement: of one check on one server, or on the ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What was checked.
    #[schema(value_type = String)]
    pub check: Check,
    /// Which server, as the configuration names it; `None` for the ensemble as a whole.
    pub server: Option<String>,
    /// What it came to.
    pub verdict: Verdict,
    /// What was measured, in `unit`.
    #[serde(serialize_with = "plain_number")]
    pub value: Option<f64>,
    /// The unit of `value` and of `threshold`.
    #[schema(value_type = Option<String>)]
    pub unit: Option<Cow<'static, str>>,
    /// The limits that it was judged by; `None` where numbers do not decide.
    pub threshold: Option<Limits>,
    /// What it means, in one sentence.
    pub meaning: String,
    /// What to do, in one sentence; `None` where there is nothing to do, or where another finding
    /// says it.
    pub remedy: Option<String>,
}

impl Finding {
    /// A judgement without a number, with the remedy of the check where something is to be done.
    pub fn told(check: Check, server: Option<&str>, verdict: Verdict, meaning: impl Into<String>) -> Self {
        Self {
            check,
            server: server.map(ToOwned::to_owned),
            verdict,
            value: None,
            unit: None,
            threshold: None,
            meaning: meaning.into(),
            remedy: verdict.is_bad().then(|| check.info().remedy.to_owned()),
        }
    }

    /// A judgement that could not be made; another one has the remedy.
    pub fn unknown(check: Check, server: Option<&str>, meaning: impl Into<String>) -> Self {
        Self::told(check, server, Verdict::Unknown, meaning)
    }

    /// A judgement by the limits of the check, and not better than `least`.
    pub fn measured(
        thresholds: &Thresholds,
        check: Check,
        server: Option<&str>,
        least: Verdict,
        value: f64,
        meaning: impl Into<String>,
    ) -> Self {
        let limits = thresholds.of(check);
        let judged = check.info().direction.map(|direction| limits.judge(value, direction));
        let verdict = Verdict::worst(judged.into_iter().chain([least])).unwrap_or(least);
        Self { threshold: Some(limits), ..Self::told(check, server, verdict, meaning).counting(value) }
    }

    /// The same with what was counted, where no limit decides.
    #[must_use]
    pub fn counting(self, value: f64) -> Self {
        Self { value: Some(value), unit: self.check.info().unit.map(Cow::Borrowed), ..self }
    }
}

/// Whether a majority of the voting servers works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// It does, or the one server that there is serves.
    Held,
    /// A majority is there and does not serve: it elects a leader, or cannot agree on one.
    Electing,
    /// It does not.
    Lost,
}

/// Whether a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// It does.
    Up,
    /// It is there and does not: it has no quorum, elects a leader, or starts.
    Waiting,
    /// It is gone, hangs, or cannot be reached.
    Down,
    /// It could not be found out.
    Unknown,
}

/// A server of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// The server, as the configuration names it.
    pub server: String,
    /// Whether it serves.
    pub state: ServerState,
}

/// All judgements on an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The ensemble's name in the configuration.
    pub ensemble: String,
    /// The worst of all: critical before warning before unknown before ok.
    pub verdict: Verdict,
    /// The server that leads; `None` where none does, several say so, or it is not known.
    #[serde(default)]
    pub leader: Option<String>,
    /// Whether a majority works; `None` where it could not be found out.
    #[serde(default)]
    pub quorum: Option<Quorum>,
    /// Whether anything of the ensemble was there, be it to refuse a connection. Otherwise it may be
    /// the network from here that is not.
    #[serde(default = "in_sight")]
    pub in_sight: bool,
    /// Every server, in the order of the configuration.
    #[serde(default)]
    pub servers: Vec<ServerView>,
    /// One for each check and server, in the order of the catalogue.
    pub checks: Vec<Finding>,
}

fn in_sight() -> bool {
    true
}

impl Report {
    /// Puts judgements together.
    pub fn new(ensemble: String, mut checks: Vec<Finding>) -> Self {
        checks.sort_by_key(|finding| finding.check);
        let verdict = Verdict::worst(checks.iter().map(|finding| finding.verdict)).unwrap_or(Verdict::Unknown);
        Self { ensemble, verdict, leader: None, quorum: None, in_sight: in_sight(), servers: Vec::new(), checks }
    }

    /// What a check found on a server, or on the ensemble.
    pub fn finding(&self, check: Check, server: Option<&str>) -> Option<&Finding> {
        self.checks.iter().find(|finding| finding.check == check && finding.server.as_deref() == server)
    }

    /// Only what these checks found, with a verdict of its own; everything where none is named.
    #[must_use]
    pub fn limited_to(self, wanted: &[Check]) -> Self {
        if wanted.is_empty() {
            return self;
        }
        let checks = self.checks.into_iter().filter(|finding| wanted.contains(&finding.check)).collect();
        let Self { leader, quorum, in_sight, servers, .. } = self;
        Self { leader, quorum, in_sight, servers, ..Self::new(self.ensemble, checks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: Check, verdict: Verdict) -> Finding {
        Finding {
            check,
            server: None,
            verdict,
            value: Some(3.0),
            unit: None,
            threshold: None,
            meaning: String::new(),
            remedy: None,
        }
    }

    #[test]
    fn what_is_bad_comes_before_what_is_not_known() {
        use Verdict::{Critical, NotApplicable, Ok, Unknown, Warning};
        for (verdicts, worst) in [
            (&[Ok, NotApplicable][..], Some(Ok)),
            (&[NotApplicable], Some(NotApplicable)),
            (&[Ok, Unknown, Ok], Some(Unknown)),
            (&[Unknown, Warning], Some(Warning)),
            (&[Critical, Warning, Unknown], Some(Critical)),
            (&[], None),
        ] {
            assert_eq!(Verdict::worst(verdicts.iter().copied()), worst, "{verdicts:?}");
        }
    }

    #[test]
    fn a_report_is_in_the_order_of_the_catalogue_and_can_be_cut_down() {
        let found = vec![finding(Check::Canary, Verdict::Unknown), finding(Check::Serving, Verdict::Ok)];
        let report = Report::new("main".into(), found);
        assert_eq!(report.verdict, Verdict::Unknown);
        assert_eq!(report.checks[0].check, Check::Serving);
        assert_eq!(report.clone().limited_to(&[]), report);
        let serving = report.limited_to(&[Check::Serving]);
        assert_eq!((serving.verdict, serving.checks.len()), (Verdict::Ok, 1));
        assert_eq!(serving.limited_to(&[Check::Clock]).verdict, Verdict::Unknown, "nothing was found out");
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let limits = Limits { warn: Some(0.5), critical: None };
        let told = Finding::told(Check::Serving, Some("zk1:2181"), Verdict::Critical, "It is gone.");
        let measured = Finding { threshold: Some(limits), ..finding(Check::Clock, Verdict::Ok).counting(0.25) };
        let mut report = Report::new("main".into(), vec![told, measured]);
        (report.leader, report.quorum, report.in_sight) = (Some("zk2:2181".into()), Some(Quorum::Electing), false);
        report.servers = vec![ServerView { server: "zk1:2181".into(), state: ServerState::Waiting }];
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let earlier = r#"{"ensemble":"main","verdict":"ok","checks":[]}"#;
        let earlier: Report = serde_json::from_str(earlier).unwrap();
        assert!(earlier.in_sight && earlier.leader.is_none());
        let foreign = text.replace("\"serving\"", "\"ruok\"");
        assert!(serde_json::from_str::<Report>(&foreign).unwrap_err().to_string().contains("there is no check `ruok`"));
    }

    #[test]
    fn the_json_has_the_names_of_the_contract() {
        let json = serde_json::to_value(finding(Check::ZxidLag, Verdict::NotApplicable)).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["check", "server", "verdict", "value", "unit", "threshold", "meaning", "remedy"]);
        assert_eq!(
            (&json["check"], &json["verdict"], &json["value"]),
            (&"zxid_lag".into(), &"not_applicable".into(), &3.into())
        );
    }
}
