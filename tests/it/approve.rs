//! `masq approve`: what a second person is shown, and that it is a second one.

use masq::vault::token::Token;

use crate::reveal::{Vault, line};

#[tokio::test]
async fn many_tokens_wait_for_a_second_person_who_is_another_one() {
    let users: Vec<(String, String)> = (0..11).map(|n| (format!("u{n}"), format!("10.0.0.{n}"))).collect();
    let users: Vec<(&str, &str)> = users.iter().map(|(user, ip)| (user.as_str(), ip.as_str())).collect();
    let vault = Vault::of(&users).await;
    let tokens: Vec<Token> = users.iter().map(|(_, ip)| vault.token(ip)).collect();
    let (code, out, said) = vault.reveal(&tokens, &[]);
    assert_eq!((code, out.as_str()), (75, ""), "{said}");
    let seq = vault.scene.database.query("SELECT max(seq) FROM masq.audit").await.remove(0);
    assert!(said.contains(&format!("request {seq} is for 11 tokens")) && said.contains("masq approve"), "{said}");
    let (code, out, said) = vault.go_on(0, &seq);
    assert!(code == 75 && out.is_empty() && said.contains("a second login"), "{said}");

    let (code, _, said) = vault.masq(0, &["approve", &seq, "--yes"], b"");
    assert!(code == 77 && said.contains("who asks cannot approve") && said.contains("another login"), "{said}");
    let (code, _, said) = vault.masq(1, &["approve", &seq], b"y\n");
    assert!(code == 2 && said.contains("--yes"), "only a terminal is asked: {said}");
    assert_eq!(vault.go_on(0, &seq).0, 75, "nothing was approved so far");
    let (code, _, said) = vault.masq(1, &["approve", &seq, "--yes", "--reason", "spoke to them"], b"");
    assert_eq!(code, 0, "{said}");
    for told in ["the values of 11 tokens", "FRAUD, ticket T-17", "many accounts, one device", "by        revealer_"] {
        assert!(said.contains(told), "{said}");
    }
    for token in &tokens {
        assert!(said.contains(&format!("token     {token}  ip\n")), "{said}");
    }
    let approvals = "SELECT count(*) FROM masq.audit WHERE action = 'approve'";
    let (code, _, said) = vault.masq(1, &["approve", &seq, "--yes"], b"");
    assert!(code == 0 && said.contains("Approved already, by revealer_"), "{said}");
    assert_eq!(vault.scene.database.query(approvals).await, ["1"]);
    assert_eq!(vault.go_on(1, &seq).0, 2, "who approves is not shown it");
    let (code, out, said) = vault.go_on(0, &seq);
    let expected: String = users.iter().map(|(_, ip)| line(vault.token(ip), ip)).collect();
    assert_eq!((code, out), (0, expected), "{said}");
    assert_eq!(vault.masq(1, &["approve", "999", "--yes"], b"").0, 2);
}
