//! Requests that have no outcome on record: a dry run of an erasure is none of them.

use crate::{
    forget::{forgotten, loaded},
    scene::Scene,
    support::masq,
};

#[tokio::test]
async fn a_dry_run_is_answered_and_what_was_given_up_is_not() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    forgotten(&scene, "u", &["--dry-run"]);
    let record = "SELECT action, request, detail FROM masq.audit WHERE action IN ('forget', 'planned') ORDER BY seq";
    let record = scene.database.query(record).await;
    assert_eq!(record.len(), 2);
    assert!(record[1].starts_with("planned\t") && record[1].ends_with("\t{}"), "{record:?}");
    let verify = || {
        let mut command = masq(scene.keys.directory.path(), &["audit", "verify"]);
        let output = command.env("DATABASE_URL", &scene.database.url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!verify().contains("no outcome"), "{}", verify());
    let ask = "SELECT masq.request_erasure('ERASURE', 'T-1', 'asked by letter', 'me', '\\x01', gen, '{u}', '{}') \
               FROM (SELECT '00000000-0000-4000-8000-000000000000'::uuid AS gen) AS g";
    scene.database.execute(ask).await;
    assert!(verify().contains("1 requests have no outcome"), "{}", verify());
}
