//! Whose fault it is that PostgreSQL refuses a row, found out on real tables that refuse rows in many ways.

use masq::sink::{Sink, SinkError, Witness};

use crate::sink::{ByHand, Login};

/// Makes a function that refuses rows if this is so, for triggers.
fn function(condition: &str) -> String {
    format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN IF {condition} THEN RAISE 'no'; END IF; RETURN NEW; END $$; "
    )
}

/// What the table did with the row that it took before, when it refused this user's.
async fn witness(sink: &mut ByHand, user: &str) -> Witness {
    witnesses(sink, user, None).await
}

/// The same, where this other one's is there to be tried as well.
async fn witnesses(sink: &mut ByHand, user: &str, other: Option<&str>) -> Witness {
    let logins: Vec<Login<'_>> = [user].into_iter().chain(other).map(|user| Login::new(user, None)).collect();
    let batch = sink.batch(&logins);
    let at = batch.entries.iter().position(|entry| entry.message.key == logins[0].key).unwrap();
    match sink.worker.sink.write_alone(&batch, at, other.map(|_| 1 - at)).await {
        Err(SinkError::Refused { witness, .. }) => witness,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is taken"),
    }
}

#[tokio::test]
async fn a_row_at_fault_is_told_from_a_table_that_refuses_everything() {
    let triggers = [
        "CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE refuse()",
        "CREATE TRIGGER refuse AFTER INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE refuse()",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE PROCEDURE refuse()",
    ];
    let of_all = function("true");
    let of_one = function("NEW.user_id = 'refused'");
    let mut cases = Vec::from([
        (Witness::TakesNone, "ALTER TABLE user_logins ADD CHECK (user_id = 'x') NOT VALID".to_owned()),
        (Witness::TakesOld, "ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')".to_owned()),
        (
            Witness::TakesNone,
            format!("{of_all} CREATE TRIGGER refuse BEFORE INSERT ON user_logins EXECUTE PROCEDURE refuse()"),
        ),
    ]);
    cases.extend(triggers.map(|trigger| (Witness::TakesNone, format!("{of_all} {trigger}"))));
    cases.extend(triggers.map(|trigger| (Witness::TakesOld, format!("{of_one} {trigger}"))));
    for (expected, sql) in cases {
        let mut sink = ByHand::new().await;
        sink.written(&[Login::new("good", None)]).await;
        sink.scene.database.execute(&sql).await;
        assert_eq!(witness(&mut sink, "refused").await, expected, "{sql}");
        let other = if expected == Witness::TakesOld { Witness::TakesNew } else { expected };
        assert_eq!(witnesses(&mut sink, "refused", Some("other")).await, other, "{sql}");
        assert_eq!(sink.users().await, ["good"], "nothing of it stays: {sql}");
    }
}

#[tokio::test]
async fn a_table_that_takes_no_row_twice_has_no_witness() {
    let mut sink = ByHand::new().await;
    sink.scene.database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::Unknown, "it has not taken any yet");
    sink.written(&[Login::new("good", None)]).await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::TakesOld);
    sink.scene.database.execute("ALTER TABLE user_logins ADD UNIQUE (user_id)").await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::Absent);
    assert_eq!(witness(&mut sink, "good").await, Witness::Absent);
    assert_eq!(witnesses(&mut sink, "good", Some("good")).await, Witness::Absent);
    assert_eq!(witnesses(&mut sink, "good", Some("other")).await, Witness::TakesNew);
}

#[tokio::test]
async fn that_a_table_takes_no_row_twice_is_found_out_with_the_next_that_it_takes() {
    let mut sink = ByHand::new().await;
    let is_there = function("EXISTS (SELECT FROM user_logins WHERE user_id = NEW.user_id)");
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE refuse()";
    // A trigger reads what the worker may not.
    let definer = "ALTER FUNCTION refuse() SECURITY DEFINER";
    sink.scene.database.execute(&format!("{is_there} {trigger}; {definer}")).await;
    sink.written(&[Login::new("good", None)]).await;
    assert_eq!(witness(&mut sink, "good").await, Witness::TakesNone, "for all that is known it could be the table");
    sink.written(&[Login::new("next", None)]).await;
    assert_eq!(witness(&mut sink, "good").await, Witness::Absent);
    assert_eq!(sink.users().await, ["good", "next"]);
}

#[tokio::test]
async fn a_table_that_is_mended_has_a_witness_again() {
    let mut sink = ByHand::new().await;
    // Its constraints speak before its index does.
    sink.scene.database.execute("ALTER TABLE user_logins ADD UNIQUE (user_id)").await;
    let check = "ALTER TABLE user_logins ADD CONSTRAINT nobody CHECK (user_id = 'x') NOT VALID";
    sink.written(&[Login::new("good", None)]).await;
    for number in 0..2 {
        sink.scene.database.execute(check).await;
        assert_eq!(witness(&mut sink, "next").await, Witness::TakesNone);
        sink.scene.database.execute("ALTER TABLE user_logins DROP CONSTRAINT nobody").await;
        sink.written(&[Login::new(&format!("after {number}"), None)]).await;
    }
    assert_eq!(sink.users().await, ["after 0", "after 1", "good"]);
}

#[tokio::test]
async fn without_a_row_that_it_took_another_of_the_batch_bears_witness() {
    let mut sink = ByHand::new().await;
    sink.scene.database.execute("ALTER TABLE user_logins ADD CHECK (user_id NOT LIKE 'refused%')").await;
    assert_eq!(witnesses(&mut sink, "refused", Some("other")).await, Witness::TakesNew);
    assert_eq!(
        witnesses(&mut sink, "refused", Some("refused as well")).await,
        Witness::Unknown,
        "it may be bad itself"
    );
}

#[tokio::test]
async fn a_trigger_that_drops_what_is_there_says_nothing() {
    let mut sink = ByHand::new().await;
    sink.written(&[Login::new("good", None)]).await;
    let function = "CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN IF NEW.user_id = 'good' THEN RETURN NULL; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER drop_row BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE drop_row(); \
         ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')";
    sink.scene.database.execute(function).await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::Absent);
}
