/** What answers: version, policies, certificates, digests. */

import { byId, element } from "./element.js";

export function showModel(model) {
  byId("model-version").textContent = model.model_version;
  const digests = Object.entries(model.digests).map(([kind, digest]) => [kind, element("code", {}, digest)]);
  byId("model-facts").replaceChildren(
    facts([
      ["Layers", String(model.num_layers)],
      ["Exit layers", model.exit_layers.join(", ")],
    ]),
    ...Object.entries(model.policies).map(([name, policy]) =>
      element("section", {}, element("h3", {}, `Policy ${name}`), facts(ofPolicy(policy))),
    ),
    element("section", {}, element("h3", {}, "Artifacts, sha256"), facts(digests)),
  );
}

function ofPolicy(policy) {
  const known = [
    ["Criterion", `${policy.criterion}, threshold ${policy.threshold}, window ${policy.window}`],
    ["May stop at", policy.layers.join(", ")],
    ["Certificate", policy.certificate ?? "none"],
  ];
  if (policy.mean_exit_layer !== null) known.push(["Mean exit layer", policy.mean_exit_layer.toFixed(1)]);
  if (policy.flops_share !== null) known.push(["FLOPs of full depth", `${Math.round(100 * policy.flops_share)} %`]);
  return known;
}

function facts(pairs) {
  return element("dl", {}, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
