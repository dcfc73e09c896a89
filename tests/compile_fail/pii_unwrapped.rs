//~ E0507 a plain value cannot be moved out of what wipes it

use masq::pii::Pii;

fn main() {
    let name = Pii::new(String::from("Ada"));
    let plain: String = *name.expose();
    drop(plain);
}
