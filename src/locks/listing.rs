//! Who holds locks and who waits for them, for people: read from ZooKeeper, whoever they are.
