"use strict";

const page = document.getElementById("calls");
const reader = document.getElementById("reader");
const nameOf = new Map(); // from token to username

const nothing = () => () => null;
const ui = SwaggerUIBundle({
  url: page.dataset.schema,
  domNode: page,
  // The page's own header introduces the service, and there is only one server.
  plugins: [{ wrapComponents: { InfoContainer: nothing, ServersContainer: nothing } }],
  deepLinking: true,
  defaultModelsExpandDepth: -1, // each operation shows its own schemas
  tryItOutEnabled: true,
  validatorUrl: null, // the badge would be loaded from another site
  responseInterceptor: followAuthorization,
});

/** Authorize the reader with the token of a response, until that token is revoked or expires. */
function followAuthorization(response) {
  const { token, user } = response.body ?? {};
  if (response.ok && token) {
    nameOf.set(token, user.username);
    ui.preauthorizeApiKey("token", token);
  }
  const loggedOut = response.ok && page.dataset.logouts.split(" ").includes(new URL(response.url).pathname);
  const isAuthorized = ui.authSelectors.authorized().has("token"); // without a token, Swagger UI's own logout fails
  if (isAuthorized && (loggedOut || response.status === 401)) {
    ui.authActions.logout(["token"]);
  }
  return response;
}

ui.getStore().subscribe(() => {
  const token = ui.authSelectors.authorized().getIn(["token", "value"]);
  const name = nameOf.get(token) ?? "the owner of your token"; // a token that the reader pasted
  reader.textContent = token ? `Authorized as ${name}` : "";
});

// Swagger UI follows such a link only when the page loads, not when it is clicked.
for (const link of document.querySelectorAll("header a[href^='#/']")) {
  link.addEventListener("click", () => {
    const [tag, operation] = link.hash.slice(2).split("/");
    ui.layoutActions.show(["operations", tag, operation], true);
    document.getElementById(`operations-${tag}-${operation}`).scrollIntoView();
  });
}
