//~ E0616 a plain value is read through `expose` alone, which is easily searched for

use masq::pii::Pii;

fn main() {
    let name = Pii::new(String::from("Ada"));
    drop(&name.0);
}
