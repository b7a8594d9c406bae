//! `web`: the address of the agent's web view, with the token that opens it.

use gossipmonger::Foreign;

use super::{
    admin::{Info, Request},
    agent::http::tokens::{self, WEB},
    api::encoded,
    client,
    error::CliError,
    output,
    remote::Target,
};

/// Print the address of the agent's web view, with the token that opens it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The agent serves the view where its flag --http (or the key http) says.

Examples:
  gossipmonger --dir a web
  gossipmonger --dir a web --token ops")]
pub(crate) struct Web {
    /// Which token of the agent's file of tokens.
    #[arg(long, value_name = "NAME", default_value = WEB)]
    token: String,
}

pub(crate) fn web(agent: &Target, args: &Web) -> Result<(), CliError> {
    agent.here()?;
    let info: Info = client::call(agent, Request::Info)?;
    let Some(http) = info.http else {
        return Err(CliError::usage(
            "this agent has no web view: start it with --http 127.0.0.1:7180, or set the key http",
        ));
    };
    let name = &args.token;
    let Some(token) = tokens::token(&http.tokens, name)? else {
        let file = http.tokens.display();
        return Err(CliError::not_found(format!("{file} has no token {name:?}")));
    };
    output::line(&format!("{}/#token={}", Foreign::from(http.url), encoded(&token)))
}
