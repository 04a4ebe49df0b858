// One call of Sequelize's by several writers, for tests/test_framework_calls.py.
// Arguments: postgres | mariadb, port, database, call, how many write at a time, how often each.
const { DataTypes, Sequelize } = require("sequelize");

const [name, port, database, call, writers, rounds] = process.argv.slice(2);
const [dialect, user] = { postgres: ["postgres", "postgres"], mariadb: ["mysql", "root"] }[name];
const sequelize = new Sequelize(database, user, "", {
  host: "127.0.0.1", port, dialect, logging: false, pool: { max: Number(writers) },
});
const Event = sequelize.define("Event", { kind: DataTypes.STRING(99) }, { tableName: "events", timestamps: false });

const CALLS = {
  create: (event, kind) => Event.create({ kind }),
  save: (event, kind) => Object.assign(event, { kind }).save(),
  update: (event, kind) => Event.update({ kind }, { where: { id: event.id } }),
  upsert: (event, kind) => Event.upsert({ id: event.id, kind }),
  bulkCreate: (event, kind) => Event.bulkCreate([{ kind }, { kind }]),
  findOrCreate: (event, kind) => Event.findOrCreate({ where: { kind } }),
  transaction: (event, kind) => sequelize.transaction((transaction) => Event.create({ kind }, { transaction })),
};

async function work(number) {
  const event = await Event.findOne({ where: { kind: `of ${number}` }, rejectOnEmpty: true });
  for (let k = 0; k < Number(rounds); k++) await CALLS[call](event, `${call} ${number} ${k}`);
}

Promise.all([...Array(Number(writers)).keys()].map(work)).then(
  () => sequelize.close(),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
