// A Sequelize application with its default settings, for tests/test_first_day.py: it knows of the proxy but the port.
// Arguments: postgres | mysql, port, user, database, then "migrate", or how many write at a time and how often each.
const { DataTypes, Sequelize } = require("sequelize");

const [dialect, port, user, database, what, rounds] = process.argv.slice(2);
const sequelize = new Sequelize(database, user, "", { host: "127.0.0.1", port, dialect, logging: false });
const Visit = sequelize.define(
  "Visit",
  { page: { type: DataTypes.TEXT, allowNull: false }, ms: { type: DataTypes.INTEGER, allowNull: false } },
  { tableName: "visits" },
);

async function visit() {
  for (let k = 0; k < Number(rounds); k++) await Visit.create({ page: `/product/${k}`, ms: k });
}

async function main() {
  if (what === "migrate") {
    await Visit.sync();
  } else {
    await Promise.all([...Array(Number(what)).keys()].map(visit));
    console.log(await Visit.count());
  }
  await sequelize.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
