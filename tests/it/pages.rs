//! The pages, in a real browser, and who may see them.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::browser;
use crate::support::member::Member;
use crate::support::team::{PATIENCE, TICK, Team, is_ready};

const TOKEN: &str = "[[server.token]]\nname = \"dashboard\"\nvalue = { env = \"READ\" }\n";

#[tokio::test]
async fn a_page_is_for_those_who_have_a_token_and_loads_nothing_of_others() {
    let member = Member::start_with(TOKEN, "http://127.0.0.1:1").await;
    let page = |password: Option<&str>| {
        let request = member.request(Method::GET, "/");
        match password {
            Some(password) => request.basic_auth("anybody", Some(password)),
            None => request,
        }
    };
    for refused in [page(None), page(Some("wrong"))] {
        let refused = refused.send().await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.headers()["www-authenticate"], "Basic realm=\"flowkeeper\", charset=\"UTF-8\"");
        let text = refused.text().await.expect("a page");
        assert!(text.contains("<h1>A token is needed</h1>") && !text.contains("hourly-load"), "{text}");
    }
    let shown = page(Some("r-secret")).send().await.expect("an answer");
    assert_eq!(shown.status(), StatusCode::OK);
    assert_eq!(shown.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(shown.headers()["cache-control"], "no-store");
    let policy = shown.headers()["content-security-policy"].to_str().expect("a policy").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(shown.text().await.expect("a page").contains("<h1>Cluster</h1>"));
    let bearer = member.send(member.request(Method::GET, "/").bearer_auth("r-secret")).await;
    assert_eq!(bearer.status, StatusCode::OK);
    assert_eq!(member.get("/assets/flowkeeper.css").await.content_type, "text/css; charset=utf-8");

    // A browser sends a password by itself, so nothing is done on the strength of one.
    let acting = member.request(Method::POST, "/api/v1/schedules/hourly-load/pause");
    let acting = member.send(acting.basic_auth("anybody", Some("r-secret")).json(&json!({}))).await;
    assert_eq!(acting.status, StatusCode::UNAUTHORIZED, "{}", acting.text);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_other_definitions_is_a_warning_until_it_has_the_same() {
    let mut team = Team::start(0, TICK).await;
    let mut configurations = Vec::new();
    for n in 0..2 {
        let mut member = team.member(&team.store, &team.zookeeper.connect());
        let path = member.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&path).expect("its configuration");
        if n == 1 {
            let more = TICK.replace("\"tick\"", "\"more\"").replace("* * * * * *", "@yearly");
            std::fs::write(&path, format!("{text}{more}")).expect("a written configuration");
        }
        configurations.push((path, text));
        member.start();
        is_ready(&member).await;
        team.members.push(member);
    }
    let leader = team.leader().await;
    assert_eq!(leader, 0, "the first to come leads");
    let leader = &team.members[0];
    let until = async |what: &str, good: &dyn Fn(&Value) -> bool| {
        let end = Instant::now() + PATIENCE;
        loop {
            let list = leader.get("members").await.expect("members");
            if good(&list) {
                return list;
            }
            assert!(Instant::now() < end, "{what}: {list}\n{}", leader.logged());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let list = until("a warning", &|list: &Value| list["items"][1]["warning"].is_string()).await;
    let (first, other) = (&list["items"][0], &list["items"][1]);
    let said = format!(
        "it runs the definitions {}, and the leader {}",
        other["configuration_version"].as_str().expect("a version"),
        first["configuration_version"].as_str().expect("a version")
    );
    assert_eq!(other["warning"], said.as_str());
    assert!(other["lag_ms"].as_i64().is_some_and(|lag| lag > 5_000), "{list}");
    assert_eq!((&first["schedules"], &other["schedules"]), (&json!(1), &json!(2)));
    assert!(first["lag_ms"].is_i64() && first["warning"].is_null(), "{list}");

    // The page, for a person.
    let document = browser::document(&leader.url()).await;
    let rows: Vec<&str> = document.split("<tr").collect();
    for item in [first, other] {
        let id = item["id"].as_str().expect("an id");
        let row = rows.iter().find(|row| row.contains("scope=\"row\"") && row.contains(id));
        let row = row.unwrap_or_else(|| panic!("no row of {id}: {document}"));
        assert!(row.contains(item["configuration_version"].as_str().expect("a version")), "{row}");
    }
    let id = other["id"].as_str().expect("an id");
    assert!(document.contains(&format!("<li>{id} is out of step: {said}.</li>")), "{document}");
    assert!(rows.iter().any(|row| row.contains("class=\"detail\"") && row.contains(&said)), "{document}");

    // The same, for whoever looks elsewhere.
    let metrics = leader.text("metrics").await.expect("metrics");
    assert!(metrics.contains("flowkeeper_members_out_of_step 1\n") && metrics.contains("flowkeeper_members 2\n"));
    assert!(leader.logged().contains("a member is out of step"), "{}", leader.logged());
    let shown = leader.json(&["members"]).await;
    assert_eq!(shown[1]["warning"], said.as_str(), "{shown}");

    let (path, text) = &configurations[1];
    std::fs::write(path, text).expect("a written configuration");
    until("in step", &|list: &Value| list["items"][1]["lag_ms"] == 0 && list["items"][1]["warning"].is_null()).await;
}
