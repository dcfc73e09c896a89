//! A token that was read in the table before its key was rotated: what `masq reveal` makes of it afterwards.

use super::{Stock, token, values};
use crate::support::masq;

/// Reveals this token; exit code, stdout and stderr.
fn reveal(stock: &Stock, token: &str) -> (i32, String, String) {
    let (keys, identity) = (stock.keys().path(), stock.identity());
    let why = ["--purpose", "FRAUD", "--ticket", "T-17", "--reason", "a token of last week"];
    let what = ["reveal", token, "--plain-output-i-know", "--identity", &identity, "--keys", keys.to_str().unwrap()];
    let mut command = masq(stock.keys().directory.path(), &[&what[..], &why].concat());
    let output = command.env("DATABASE_URL", &stock.scene.database.url).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn an_old_token_leads_to_its_value_until_its_key_is_retired() {
    let stock = Stock::of(3).await;
    let address = &values(0)[0];
    let old = token(&stock.root(1), address);
    stock.activate();
    // An entry that cannot follow keeps the old key in use.
    stock
        .execute(
            "UPDATE masq.entries SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE field = 'device_id'",
        )
        .await;
    assert_eq!(stock.rekey().0, 3);
    let new = token(&stock.root(2), address);
    let under = "SELECT count(*) FROM masq.entries WHERE field = 'ip' AND get_byte(token, 0) = 1";
    assert_eq!(stock.query(under).await, ["0"], "all addresses have moved");

    let (code, out, said) = reveal(&stock, &old);
    assert_eq!((code, out), (0, format!("{old}\t{}\n", address.2)), "{said}");
    let record = "SELECT action, encode(items[1], 'hex'), cardinality(items) FROM masq.audit \
                  WHERE action LIKE 'reveal%' ORDER BY seq";
    assert_eq!(stock.query(record).await, [format!("reveal\t{old}\t1"), format!("revealed\t{new}\t1")]);
    assert_eq!(reveal(&stock, &new).1, format!("{new}\t{}\n", address.2));

    assert_eq!(stock.rotate(&["--token", "--identity", &stock.identity(), "--force"]).0, 3);
    let (code, out, said) = reveal(&stock, &old);
    assert_eq!((code, out), (3, format!("{old}\t\n")));
    assert!(said.contains("was retired by a rotation") && said.contains("masq find"), "{said}");
    std::fs::remove_file(stock.keys().path().join("token.key")).unwrap();
    let (code, _, said) = reveal(&stock, &old);
    assert!(code == 3 && said.contains("was retired by a rotation"), "{said}");
}
