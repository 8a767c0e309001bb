//! The instructions of a callback: the benchmark compares them with recorded numbers.

use std::process::Command;

#[test]
fn a_callback_takes_no_more_instructions_than_recorded() {
    let mut bench = Command::new(env!("CARGO"));
    bench.args(["bench", "--locked", "--bench", "callbacks", "--", "instructions"]);
    let output = bench.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    eprintln!("{stdout}");
    assert!(output.status.success(), "{stdout}{stderr}");
}
