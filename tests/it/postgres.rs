//! The ledger on PostgreSQL, told with real servers.

use crate::support::postgres::{PostgresServer, Stop};

#[tokio::test]
async fn a_server_of_the_tests_own_keeps_its_data_however_it_ends() {
    let server = PostgresServer::start().await;
    let url = server.create_database().await;
    let database = url.rsplit('/').next().expect("the URL names a database");
    for (number, how) in [Stop::Fast, Stop::Immediate, Stop::Kill].into_iter().enumerate() {
        server.execute(database, &format!("CREATE TABLE t{number} (id BIGINT)")).await;
        server.restart(how).await;
        server.execute(database, &format!("INSERT INTO t{number} VALUES (1)")).await;
    }
}
