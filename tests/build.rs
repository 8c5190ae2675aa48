//! Sets the configuration `telos_data` if `TELOS_DATA` names the folder of real data, so that the test runner lists the tests of
//! [`real_data`](e2e/real_data/mod.rs) as ignored otherwise.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TELOS_DATA");
    println!("cargo::rustc-check-cfg=cfg(telos_data)");
    if std::env::var_os("TELOS_DATA").is_some_and(|folder| !folder.is_empty()) {
        println!("cargo::rustc-cfg=telos_data");
    }
}
