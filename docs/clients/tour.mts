// Uses openapi-fetch with the types that openapi-typescript generates. docs/clients.md shows how to run it.
import assert from "node:assert/strict";
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

const baseUrl = process.argv[2];
const run = crypto.randomUUID().slice(0, 8);
const [alice, bob] = [`alice-${run}`, `bob-${run}`];

async function signUp(username: string): Promise<Client<paths>> {
  const body = { username, password: "a long secret", email: `${username}@example.com` };
  const { data, error } = await createClient<paths>({ baseUrl }).POST("/api/auth/register", { body });
  assert(data, JSON.stringify(error));
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${data.token}` } });
}

async function send(client: Client<paths>, receiver: string, content: string): Promise<components["schemas"]["Message"]> {
  const { data, error } = await client.POST("/api/message", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { receiver, content },
  });
  assert(data, JSON.stringify(error));
  return data;
}

const [asAlice, asBob] = [await signUp(alice), await signUp(bob)];
const hello = await send(asAlice, bob, "Hello, bob 👋");
const all = await asBob.GET("/api/message");
assert.deepEqual(all.data?.results, [hello]);

const stillThere = await send(asAlice, bob, "Still there?");
const news = await asBob.GET("/api/message/received", { params: { query: { after: hello.id } } });
assert.deepEqual(news.data?.results, [stillThere]);

const block = await asBob.POST("/api/block", { body: { blocked: alice } });
assert.equal(block.data?.blocked, alice);
const rejected = await asAlice.POST("/api/message", { body: { receiver: bob, content: "Bob?" } });
assert.equal(rejected.response.status, 403);
assert(rejected.error && typeof rejected.error.detail === "string");
console.log(`${bob} got "${stillThere.content}"; then ${alice} got a 403: ${rejected.error.detail}`);
