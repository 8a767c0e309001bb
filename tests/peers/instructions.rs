//! What a callback costs, in instructions: the benchmark holds them to what is recorded in it.

use std::process::Command;

#[test]
fn a_callback_takes_no_more_instructions_than_recorded() {
    let mut bench = Command::new(env!("CARGO"));
    bench.args(["bench", "--locked", "--bench", "callbacks", "--", "instructions"]);
    let output = bench.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let [said, complaint] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    eprintln!("{said}");
    assert!(output.status.success(), "{said}{complaint}");
}
