"use strict";

const page = document.getElementById("calls");
const reader = document.getElementById("reader");
const nameOf = new Map(); // whose a token is, by the token

const nothing = () => () => null;
const ui = SwaggerUIBundle({
  url: page.dataset.schema,
  domNode: page,
  // The page's own header says what the service is; a list of one server says nothing.
  plugins: [{ wrapComponents: { InfoContainer: nothing, ServersContainer: nothing } }],
  deepLinking: true,
  defaultModelsExpandDepth: -1, // each call shows its own shapes
  tryItOutEnabled: true,
  validatorUrl: null, // the badge would come from elsewhere
  responseInterceptor: followAuthorization,
});

/** Authorize the reader from the answer that brings a token, and no longer once that token is dead. */
function followAuthorization(response) {
  const { token, user } = response.body ?? {};
  if (response.ok && token) {
    nameOf.set(token, user.username);
    ui.preauthorizeApiKey("token", token);
  }
  const loggedOut = response.ok && page.dataset.logouts.split(" ").includes(new URL(response.url).pathname);
  if (loggedOut || response.status === 401) {
    ui.authActions.logout(["token"]);
  }
  return response;
}

ui.getStore().subscribe(() => {
  const token = ui.authSelectors.authorized().getIn(["token", "value"]);
  const name = nameOf.get(token) ?? "the owner of your token"; // which the reader brought along
  reader.textContent = token ? `Authorized as ${name}` : "";
});

// Swagger UI follows such a link when it loads, not when it is clicked.
for (const link of document.querySelectorAll("header a[href^='#/']")) {
  link.addEventListener("click", () => {
    const [tag, operation] = link.hash.slice(2).split("/");
    ui.layoutActions.show(["operations", tag, operation], true);
    document.getElementById(`operations-${tag}-${operation}`).scrollIntoView();
  });
}
