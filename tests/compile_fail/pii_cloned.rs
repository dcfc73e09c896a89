//~ E0599 a plain value exists once, so that it can be wiped

use masq::pii::Pii;

fn main() {
    let name = Pii::new(String::from("Ada"));
    drop(name.clone());
}
