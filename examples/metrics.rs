//! A node whose figures a program of its own serves: they are published to the `metrics` facade, and a recorder for
//! Prometheus renders them.

use std::time::Duration;

use gossipmonger::{Gossipmonger, pki};
use metrics_exporter_prometheus::PrometheusBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A program with an HTTP server serves `recorder.render()` at `/metrics`.
    let recorder = PrometheusBuilder::new().install_recorder()?;

    let directory = tempfile::tempdir()?;
    pki::throwaway(directory.path(), "demo", ["a"])?;
    let builder = Gossipmonger::builder().directory(directory.path().join("a"));
    let (node, running) = builder.listen("127.0.0.1:0").spawn().await?;
    let publishing = node.publish_metrics();
    node.set("service/web", "10.0.0.1:80").await?;

    let published = async {
        while !recorder.render().contains("gossipmonger_keys 1\n") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), published).await?;
    let page = recorder.render();
    for line in page.lines().filter(|line| line.starts_with("gossipmonger_members")) {
        println!("{line}");
    }
    println!("{} lines", page.lines().count());

    node.leave_for_now().await?;
    running.await?;
    // It ends with the node.
    publishing.await?;
    Ok(())
}
