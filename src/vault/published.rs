//! Published vectors, run against what masq calls: RFC 4231, 5869 and 9180, X-Wing's draft, and Wycheproof's with the
//! invalid cases. They pin the crates; masq's own formats are pinned in `vectors.rs`.
//!
//! The files are `tests/data/published/*.json`; the README beside them says where they are from. Each test says how many
//! cases it ran, so that none is passed over.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::ChaCha20Poly1305,
    kdf::HkdfSha256,
    kem::{X25519HkdfSha256, XWing},
    setup_receiver, setup_sender_with_rng,
};
use serde::Deserialize;
use sha2::Sha256;

use super::{
    recovery::Given,
    vectors::{load, unhex},
};

/// A file of Wycheproof's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wycheproof<Case> {
    number_of_tests: usize,
    test_groups: Vec<Group<Case>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group<Case> {
    #[serde(default)]
    key_size: usize,
    #[serde(default)]
    tag_size: usize,
    tests: Vec<Case>,
}

impl<Case> Wycheproof<Case> {
    /// The cases, each with its key's and tag's size in bits.
    fn cases(self) -> Vec<(usize, usize, Case)> {
        let of = |Group { key_size, tag_size, tests }| tests.into_iter().map(move |case| (key_size, tag_size, case));
        let cases: Vec<_> = self.test_groups.into_iter().flat_map(of).collect();
        assert_eq!(cases.len(), self.number_of_tests);
        cases
    }
}

/// How many cases were valid and invalid.
#[derive(Debug, Default, PartialEq)]
struct Ran(usize, usize);

impl Ran {
    /// Notes a case and whether it was taken; it must be as the vectors have it.
    fn note(&mut self, result: &str, was_taken: bool, what: &str) {
        assert_eq!(was_taken, result == "valid", "{what}");
        *(if was_taken { &mut self.0 } else { &mut self.1 }) += 1;
    }
}

#[derive(Deserialize)]
struct MacCase {
    comment: String,
    key: String,
    msg: String,
    tag: String,
    result: String,
}

#[test]
fn hmac_sha256_of_wycheproof() {
    let file: Wycheproof<MacCase> = load(include_str!("../../tests/data/published/hmac_sha256_test.json"));
    let mut ran = Ran::default();
    for (_, bits, case) in file.cases() {
        let mac = Hmac::<Sha256>::new_from_slice(&unhex(&case.key)).unwrap().chain_update(unhex(&case.msg));
        let tag = unhex(&case.tag);
        let is_tag = tag.len() * 8 == bits && mac.verify_truncated_left(&tag).is_ok();
        ran.note(&case.result, is_tag, &case.comment);
    }
    assert_eq!(ran, Ran(66, 108));
}

#[derive(Deserialize)]
struct HkdfCase {
    comment: String,
    ikm: String,
    salt: String,
    info: String,
    size: usize,
    okm: String,
    result: String,
}

#[test]
fn hkdf_sha256_of_wycheproof() {
    let file: Wycheproof<HkdfCase> = load(include_str!("../../tests/data/published/hkdf_sha256_test.json"));
    let mut ran = Ran::default();
    for (.., case) in file.cases() {
        let mut okm = vec![0; case.size];
        let expanded =
            Hkdf::<Sha256>::new(Some(&unhex(&case.salt)), &unhex(&case.ikm)).expand(&unhex(&case.info), &mut okm);
        ran.note(&case.result, expanded.is_ok() && okm == unhex(&case.okm), &case.comment);
    }
    assert_eq!(ran, Ran(83, 3));
}

#[derive(Deserialize)]
struct AeadCase {
    comment: String,
    key: String,
    iv: String,
    aad: String,
    msg: String,
    ct: String,
    tag: String,
    result: String,
}

#[test]
fn aes_256_gcm_siv_of_wycheproof() {
    let file: Wycheproof<AeadCase> = load(include_str!("../../tests/data/published/aes_gcm_siv_test.json"));
    let mut ran = Ran::default();
    for (_, _, case) in file.cases().into_iter().filter(|(key_size, ..)| *key_size == 256) {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &unhex(&case.key)).unwrap());
        let nonce = || Nonce::try_assume_unique_for_key(&unhex(&case.iv)).unwrap();
        let mut bytes = [unhex(&case.ct), unhex(&case.tag)].concat();
        let opened = key.open_in_place(nonce(), Aad::from(unhex(&case.aad)), &mut bytes);
        let is_right = opened.is_ok_and(|plain| *plain == unhex(&case.msg));
        ran.note(&case.result, is_right, &case.comment);
        if is_right {
            let mut sealed = unhex(&case.msg);
            key.seal_in_place_append_tag(nonce(), Aad::from(unhex(&case.aad)), &mut sealed).unwrap();
            assert_eq!(sealed, [unhex(&case.ct), unhex(&case.tag)].concat(), "{}", case.comment);
        }
    }
    assert_eq!(ran, Ran(69, 34));
}

#[derive(Deserialize)]
struct XdhCase {
    comment: String,
    public: String,
    private: String,
    shared: String,
    result: String,
}

/// None is invalid: what is `acceptable` (points of low order, on the twist or not reduced) has an answer, too, by
/// RFC 7748, and HPKE refuses the answer zero.
#[test]
fn x25519_of_wycheproof() {
    let file: Wycheproof<XdhCase> = load(include_str!("../../tests/data/published/x25519_test.json"));
    let (mut ran, mut acceptable) = (0, 0);
    for (.., case) in file.cases() {
        let (private, public): ([u8; 32], [u8; 32]) =
            (unhex(&case.private).try_into().unwrap(), unhex(&case.public).try_into().unwrap());
        assert_eq!(x25519_dalek::x25519(private, public).as_slice(), unhex(&case.shared), "{}", case.comment);
        assert!(["valid", "acceptable"].contains(&case.result.as_str()));
        acceptable += usize::from(case.result == "acceptable");
        ran += 1;
    }
    assert_eq!((ran, acceptable), (518, 254));
}

#[derive(Deserialize)]
struct KemCase {
    eseed: String,
    ss: String,
    sk: String,
    pk: String,
    ct: String,
}

#[test]
fn x_wing_of_its_draft() {
    let cases: Vec<KemCase> = load(include_str!("../../tests/data/published/x_wing.json"));
    assert_eq!(cases.len(), 3);
    for case in cases {
        let private = <XWing as Kem>::PrivateKey::from_bytes(&unhex(&case.sk)).unwrap();
        let public = XWing::sk_to_pk(&private);
        assert_eq!(public.to_bytes().as_slice(), unhex(&case.pk));
        let (shared, sent) = XWing::encap_with_rng(&public, None, &mut Given(&unhex(&case.eseed))).unwrap();
        assert_eq!((shared.0.as_slice(), sent.to_bytes().as_slice()), (&*unhex(&case.ss), &*unhex(&case.ct)));
        let received = <XWing as Kem>::EncappedKey::from_bytes(&unhex(&case.ct)).unwrap();
        assert_eq!(XWing::decap(&private, None, &received).unwrap().0.as_slice(), unhex(&case.ss));
    }
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the names in the RFC's vectors")]
struct HpkeCase {
    kem_id: u16,
    info: String,
    ikmE: String,
    skRm: String,
    pkRm: String,
    enc: String,
    encryptions: Vec<Encryption>,
}

#[derive(Deserialize)]
struct Encryption {
    aad: String,
    ct: String,
    pt: String,
}

/// Seals and opens with the suite of this KEM, HKDF-SHA256 and ChaCha20Poly1305. Answers how many messages.
fn seal_and_open<K: Kem>(case: &HpkeCase) -> usize {
    let (info, ephemeral) = (unhex(&case.info), unhex(&case.ikmE));
    let private = K::PrivateKey::from_bytes(&unhex(&case.skRm)).unwrap();
    let public = K::sk_to_pk(&private);
    assert_eq!(public.to_bytes().as_slice(), unhex(&case.pkRm));
    let (sent, mut sender) = setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
        &OpModeS::Base,
        &public,
        &info,
        &mut Given(&ephemeral),
    )
    .unwrap();
    assert_eq!(sent.to_bytes().as_slice(), unhex(&case.enc));
    let received = K::EncappedKey::from_bytes(&unhex(&case.enc)).unwrap();
    let mut receiver =
        setup_receiver::<ChaCha20Poly1305, HkdfSha256, K>(&OpModeR::Base, &private, &received, &info).unwrap();
    for Encryption { aad, ct, pt } in &case.encryptions {
        let (aad, ct, pt) = (unhex(aad), unhex(ct), unhex(pt));
        assert_eq!(sender.seal(&pt, &aad).unwrap(), ct);
        let mut changed = ct.clone();
        changed[0] ^= 1;
        assert!(receiver.open(&changed, &aad).is_err());
        assert_eq!(receiver.open(&ct, &aad).unwrap(), pt);
    }
    case.encryptions.len()
}

#[test]
fn hpke_of_rfc_9180_and_of_its_draft_with_x_wing() {
    let cases: Vec<HpkeCase> = load(include_str!("../../tests/data/published/hpke.json"));
    let ran: Vec<_> = cases
        .iter()
        .map(|case| match case.kem_id {
            X25519HkdfSha256::KEM_ID => seal_and_open::<X25519HkdfSha256>(case),
            XWing::KEM_ID => seal_and_open::<XWing>(case),
            other => panic!("no such KEM: {other:#x}"),
        })
        .collect();
    assert_eq!(ran, [1, 10]);
}

#[test]
fn hmac_of_rfc_4231() {
    let larger = "This is a test using a larger than block-size key and a larger than block-size data. The key needs to \
                  be hashed before being used by the HMAC algorithm.";
    let counting: Vec<u8> = (1..=25).collect();
    let cases: [(&[u8], &[u8], &str); 7] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (&counting, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (&[0x0c; 20], b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (&[0xaa; 131], larger.as_bytes(), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ];
    for (key, message, tag) in cases {
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message);
        mac.verify_truncated_left(&unhex(tag)).unwrap();
    }
}

#[test]
fn hkdf_of_rfc_5869() {
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    for (ikm, salt, info, okm) in [
        (
            vec![0x0b; 22],
            range(0, 12),
            range(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0x00, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f\
             09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            Vec::new(),
            Vec::new(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ] {
        let expected = unhex(okm);
        let mut found = vec![0; expected.len()];
        Hkdf::<Sha256>::new(Some(&salt), &ikm).expand(&info, &mut found).unwrap();
        assert_eq!(found, expected);
    }
}
