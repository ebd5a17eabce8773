//! Who owns ephemeral znodes, asked of real servers through a real member: the living, those whose
//! connection is gone while their session lasts, and what is told when servers do not answer.

use std::time::Duration;

use serde_json::{Value, json};
use zookeeper_client::{Acls, Client, CreateMode};

use crate::support::process::Member;
use crate::support::world::wait_for;
use crate::support::zookeeper::ZooKeeperServer;

/// The owner of this znode, as the API tells.
async fn owner(member: &Member, ensemble: &str, path: &str) -> Option<Value> {
    let told = member.get(&format!("ensembles/{ensemble}/ephemerals")).await?;
    let owns = |session: &&Value| session["paths"].as_array().is_some_and(|paths| paths.contains(&json!(path)));
    told["sessions"].as_array()?.iter().find(owns).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_told_with_their_connections_while_they_last() {
    let server = ZooKeeperServer::start().await;
    let mut member = Member::new(&format!(
        "[zookeeper]\nconnect = \"{}\"\n[ensemble.gone]\nconnect = \"127.0.0.1:1\"\nadmin = \"off\"\n\
         [airflow.main]\nurl = \"http://127.0.0.1:1\"\nauth = {{ token = {{ env = \"PATH\" }} }}\n\
         [[schedule]]\nname = \"yearly\"\ncron = \"@yearly\"\ndag = \"any\"\n",
        server.connect()
    ));
    member.start();
    member.armed().await;

    let connector = Client::connector().with_session_timeout(Duration::from_secs(10)).with_detached();
    let client = connector.connect(&server.connect()).await.expect("a session");
    let mode = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    client.create("/mine", b"", &mode).await.expect("an ephemeral znode");
    let session = format!("{:#x}", client.session().id().0);
    let mine = owner(&member, "home", "/mine").await.expect("an owner");
    assert_eq!(
        (&mine["session"], &mine["ephemerals"], &mine["paths"]),
        (&json!(session), &json!(1), &json!(["/mine"]))
    );
    assert_eq!((&mine["alive"], &mine["connected"]), (&json!(true), &json!(true)), "{mine}");
    assert_eq!(mine["kept_on"], json!([server.connect()]));
    let connection = &mine["connections"][0];
    assert_eq!(connection["server"], json!(server.connect()));
    assert!(connection["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{mine}");
    assert!(connection["age_s"].as_u64().is_some_and(|age| age < 60), "{mine}");

    // Its connection goes, its session lasts for a while, and then nothing is left.
    drop(client);
    let away = || async { owner(&member, "home", "/mine").await.filter(|mine| mine["connected"] == json!(false)) };
    let mine = wait_for(away, || "it is still connected".to_owned()).await;
    assert_eq!((&mine["alive"], &mine["connections"]), (&json!(true), &json!([])), "{mine}");
    let left = || async { owner(&member, "home", "/mine").await.is_none().then_some(()) };
    wait_for(left, || "the session does not end".to_owned()).await;

    let nobody = member.get("ensembles/gone/ephemerals").await.expect("an answer");
    assert_eq!(nobody["sessions"], json!([]));
    let error = nobody["servers"][0]["error"].as_str().expect("an error");
    assert!(error.contains("cannot be reached"), "{error}");
    assert_eq!(member.get("ensembles/nobody/ephemerals").await, None, "there is no such ensemble");
    assert_eq!(member.stop().await, Some(0));
}
