//! Compiles the nexus tap for the kernel's BPF machine.

use std::env;
use std::path::Path;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/nexus/tap.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let directory = env::var("OUT_DIR").expect("cargo says where");
    let mut builder = SkeletonBuilder::new();
    // Version 3 has the atomic operations that the tap needs: Linux 5.12 and later.
    builder
        .source(SOURCE)
        .obj(Path::new(&directory).join("tap.bpf.o"))
        .clang_args([
            "-mcpu=v3",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-parameter",
        ]);
    if let Ok(clang) = env::var("CLANG") {
        builder.clang(clang);
    }
    if let Err(error) = builder.build() {
        panic!(
            "{error:#}\nThe nexus tap needs clang: `scripts/setup build` installs it, or CLANG names it."
        );
    }
}
