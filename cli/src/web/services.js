// The services that live nodes offer.

import { link, make, table } from "/dom.js";

export class Services {
  constructor(place) {
    this.place = place;
  }

  // `offers`: of /v1/services.
  show(offers) {
    const seen = JSON.stringify(offers);
    if (seen === this.seen) {
      return;
    }
    this.seen = seen;
    if (offers.length === 0) {
      this.place.replaceChildren(make("p", { class: "quiet" }, "No node offers a service."));
      return;
    }
    const rows = offers.slice(0, 500).map((offer) => [
      String(offer.service), String(offer.version), link(offer.node), offer.draining ? "drains" : "offered",
    ]);
    const title = offers.length > 500 ? `${offers.length} offers, the first 500` : `${offers.length} offers`;
    this.place.replaceChildren(table(title, [["Service", false], ["Version", false], ["Node", false], ["State", false]], rows));
  }
}
