use rusqlite::Connection;
use serde_json::json;
use wire::Node;

use super::*;

fn opened() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("ferric.sqlite")).unwrap();
    (directory, store)
}

fn node(number: u128) -> Record {
    let mut node = Node::new(Uuid::from_u128(number), "fake");
    node.name = Some(format!("n{number}"));
    Record::new(node)
}

#[tokio::test]
async fn what_could_not_be_read_back_is_not_committed() {
    let (_directory, store) = opened();
    let mut record = node(1);
    let nested = (0..126).fold(json!(1), |inner, _| json!([inner]));
    record.node.driver_info.insert("a".into(), nested.clone());
    assert!(matches!(store.create_node(record).await, Err(StoreError::Unreadable(_))));
    store.create_node(node(1)).await.unwrap();
    let nest = move |record: &mut Record| {
        record.node.extra.insert("a".into(), nested);
        Ok(())
    };
    assert!(matches!(store.update("n1", nest).await, Err(StoreError::Unreadable(_))));
    assert!(store.node("n1").await.unwrap().node.extra.is_empty());
}

#[tokio::test]
async fn a_damaged_record_hides_no_other_and_can_be_deleted() {
    let (directory, store) = opened();
    for number in 1..=3 {
        store.create_node(node(number)).await.unwrap();
    }
    let other = Connection::open(directory.path().join("ferric.sqlite")).unwrap();
    other.execute("UPDATE nodes SET body = '{\"node\": {' WHERE name = 'n2'", []).unwrap();
    let names: Vec<_> = store.nodes().await.unwrap().into_iter().map(|record| record.node.label()).collect();
    assert_eq!(names, ["n1", "n3"]);
    let error = store.node("n2").await.unwrap_err();
    assert!(error.to_string().contains("node 00000000-0000-0000-0000-000000000002"), "{error}");
    let uuid = store.node_uuid("n2").await.unwrap();
    store.delete_node(uuid).await.unwrap();
    assert!(matches!(store.node("n2").await, Err(StoreError::NoNode(_))));
}
