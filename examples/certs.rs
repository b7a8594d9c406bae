//! Makes every certificate that the tests need, good and bad, in a directory:
//!
//!     cargo run --example certs -- DIR
//!
//! Without DIR it uses a temporary directory and deletes it. `certs/README.md` describes each of them.

#[path = "../certs/make.rs"]
mod make;

use std::{
    error::Error,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let thrown_away = tempfile::tempdir()?;
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = given.as_deref().unwrap_or_else(|| thrown_away.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/openssl-chain.sh");
    if !make::make(dir, &script)? {
        println!("SKIPPED: the chains by openssl (there is no openssl command here)");
    }
    let mut made: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    made.sort_by_key(std::fs::DirEntry::file_name);
    for entry in made.iter().filter(|entry| entry.path().is_dir()) {
        println!("{}", entry.path().display());
    }
    Ok(())
}
