//! Writes the seeds: `cargo run --manifest-path fuzz/Cargo.toml --bin seeds` makes `fuzz/corpus/<target>/seed-N`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let seeds = [
        weir_common::fuzz::seeds(),
        weir_analysis::fuzz::seeds(),
        weir_console::fuzz::seeds(),
        weir_agent::fuzz::seeds(),
    ]
    .concat();
    for (number, (target, bytes)) in seeds.into_iter().enumerate() {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("seed-{number}")), bytes)?;
    }
    Ok(())
}
