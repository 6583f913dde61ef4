//! What shells complete by.

use clap::Command;
use clap_complete::{Generator, Shell, generate};

/// Each shell's file, named as that shell wants it.
pub fn all(command: &mut Command) -> Vec<(String, String)> {
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| (shell.file_name("heat-salt-bootstrap"), written(shell, command)))
        .collect()
}

fn written(shell: Shell, command: &mut Command) -> String {
    let mut text = Vec::new();
    generate(shell, command, "heat-salt-bootstrap", &mut text);
    // clap writes text. For bash it names its cases by splitting at the wrong hyphens where the program's own name has some
    // (clap_complete 4.6), so that no verb's options would be found; where it does so no more, this changes nothing.
    String::from_utf8_lossy(&text).replace("heat__subcmd__salt__subcmd__bootstrap", "heat__salt__bootstrap")
}
