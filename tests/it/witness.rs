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

/// What the table did with its witness when it refused this user, alone.
async fn witness(sink: &mut ByHand, user: &str) -> Witness {
    let batch = sink.batch(&[Login::new(user, None)]);
    match sink.worker.sink.write_alone(&batch, 0).await {
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
        (Witness::Refused, "ALTER TABLE user_logins ADD CHECK (user_id = 'x') NOT VALID".to_owned()),
        (Witness::Taken, "ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')".to_owned()),
        (
            Witness::Refused,
            format!("{of_all} CREATE TRIGGER refuse BEFORE INSERT ON user_logins EXECUTE PROCEDURE refuse()"),
        ),
    ]);
    cases.extend(triggers.map(|trigger| (Witness::Refused, format!("{of_all} {trigger}"))));
    cases.extend(triggers.map(|trigger| (Witness::Taken, format!("{of_one} {trigger}"))));
    for (expected, sql) in cases {
        let mut sink = ByHand::new().await;
        sink.written(&[Login::new("good", None)]).await;
        sink.scene.database.execute(&sql).await;
        assert_eq!(witness(&mut sink, "refused").await, expected, "{sql}");
        assert_eq!(sink.users().await, ["good"], "nothing of it stays: {sql}");
    }
}

#[tokio::test]
async fn a_table_that_takes_no_row_twice_has_no_witness() {
    let mut sink = ByHand::new().await;
    sink.scene.database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::Unknown, "it has not taken any yet");
    sink.written(&[Login::new("good", None)]).await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::Taken);
    sink.scene.database.execute("ALTER TABLE user_logins ADD UNIQUE (user_id)").await;
    assert_eq!(witness(&mut sink, "refused").await, Witness::Absent);
    assert_eq!(witness(&mut sink, "good").await, Witness::Absent);
}

#[tokio::test]
async fn that_a_table_takes_no_row_twice_is_found_out_with_the_next_that_it_takes() {
    let mut sink = ByHand::new().await;
    let is_there = function("EXISTS (SELECT FROM user_logins WHERE user_id = NEW.user_id)");
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE PROCEDURE refuse()";
    sink.scene.database.execute(&format!("{is_there} {trigger}")).await;
    sink.written(&[Login::new("good", None)]).await;
    assert_eq!(witness(&mut sink, "good").await, Witness::Refused, "for all that is known it could be the table");
    sink.written(&[Login::new("next", None)]).await;
    assert_eq!(witness(&mut sink, "good").await, Witness::Absent);
    assert_eq!(sink.users().await, ["good", "next"]);
}

#[tokio::test]
async fn a_table_that_is_mended_has_a_witness_again() {
    let mut sink = ByHand::new().await;
    let check = "ALTER TABLE user_logins ADD CONSTRAINT nobody CHECK (user_id = 'x') NOT VALID";
    sink.written(&[Login::new("good", None)]).await;
    for number in 0..2 {
        sink.scene.database.execute(check).await;
        assert_eq!(witness(&mut sink, "next").await, Witness::Refused);
        sink.scene.database.execute("ALTER TABLE user_logins DROP CONSTRAINT nobody").await;
        sink.written(&[Login::new(&format!("after {number}"), None)]).await;
    }
    assert_eq!(sink.users().await, ["after 0", "after 1", "good"]);
}
