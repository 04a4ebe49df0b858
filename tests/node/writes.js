// The drivers' part of tests/test_node.py: several connections do the same work in step; their answers go to stdout.
// Arguments: pg | pg-named | mysql2 | mysql2-execute, port, table.
const [kind, port, table] = process.argv.slice(2);
const SESSIONS = 6;
const HINT = "/* max_wait_ms:200 file:writes.js line:1 */ ";
const postgres = kind.startsWith("pg");

let waiting = [];
function inStep() {
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (waiting.length === SESSIONS) {
      const all = waiting;
      waiting = [];
      all.forEach((go) => go());
    }
  });
}

async function connect() {
  if (postgres) {
    const { Client } = require("pg");
    const client = new Client({ host: "127.0.0.1", port, user: "postgres", database: "postgres" });
    await client.connect();
    return {
      async run(sql, params) {
        let n = 0;
        const text = sql.replace(/\?/g, () => `$${++n}`);
        const name = kind === "pg-named" ? text.slice(0, 60) + text.length : undefined;
        const result = await client.query({ text, values: params, name });
        return result.rows.length ? result.rows : result.rowCount;
      },
      code: (error) => error.code,
      end: () => client.end(),
    };
  }
  const mysql = require("mysql2/promise");
  const connection = await mysql.createConnection({ host: "127.0.0.1", port, user: "root", database: "d" });
  const method = kind === "mysql2" ? "query" : "execute";
  return {
    async run(sql, params) {
      const [result] = await connection[method](sql, params);
      if (Array.isArray(result)) return result;
      return [result.affectedRows, result.changedRows, result.insertId > 0, result.warningStatus, result.info];
    },
    code: (error) => error.errno,
    end: () => connection.end(),
  };
}

async function work(k) {
  const db = await connect();
  const base = k * 1000;
  const upsert = postgres
    ? `ON CONFLICT (id) DO UPDATE SET n = ${table}.n + 1`
    : "ON DUPLICATE KEY UPDATE n = n + 1";
  const out = [];
  async function run(sql, ...params) {
    await inStep();
    try {
      out.push(await db.run(/^(INSERT|UPDATE|DELETE)/.test(sql) ? HINT + sql : sql, params));
    } catch (error) {
      out.push(["error", db.code(error)]);
    }
  }
  for (let n = 0; n < 15; n++) {
    await run(`INSERT INTO ${table} (id, n, b) VALUES (?, ?, ?)`, base + n, n, n % 3 ? `it's "${n}" 漢字 🙂` : null);
  }
  for (let n = 0; n < 15; n++) await run(`UPDATE ${table} SET n = n + ? WHERE id = ?`, 5, base + n);
  if (postgres) {
    for (let n = 0; n < 5; n++) {
      await run(`INSERT INTO ${table} (id, n) VALUES (?, ?) RETURNING id, n, b`, base + 100 + n, n);
    }
  }
  for (let n = 0; n < 6; n++) await run(`INSERT INTO ${table} (id, n) VALUES (?, ?) ${upsert}`, base + 200 + (n % 2), n);
  for (let n = 0; n < 4; n++) await run(`DELETE FROM ${table} WHERE id = ?`, base + n);
  await run(`INSERT INTO ${table} (id) VALUES (?)`, base + 5);
  await run(`INSERT INTO ${table} (id, n) VALUES (?, ?)`, base + 900, null);
  await run(`INSERT INTO missing (id) VALUES (?)`, base);
  await run("BEGIN");
  await run(`INSERT INTO ${table} (id, n) VALUES (?, ?)`, base + 300, 1);
  await run("ROLLBACK");
  await run(`SELECT id, n, b FROM ${table} WHERE id >= ? AND id < ? ORDER BY id`, base, base + 1000);
  await db.end();
  return out;
}

Promise.all([...Array(SESSIONS).keys()].map(work)).then(
  (results) => process.stdout.write(JSON.stringify(results)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
