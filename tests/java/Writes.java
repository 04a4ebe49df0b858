import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Connections that write in step, for tests/test_java.py. Arguments: "statement" or "prepared", then a table and a JDBC
 * URL for each place where the same work is done. A line for each write goes to standard output:
 * "table TAB session TAB what TAB answer"; where a row's key was asked for, "table TAB key TAB tag TAB id" follows.
 */
class Writes {
    static final int SESSIONS = 8;
    static final String HINT = "/* max_wait_ms:200 file:Writes.java line:1 */ ";
    static final CyclicBarrier STEP = new CyclicBarrier(SESSIONS);

    static class Session {
        final Connection connection;
        final boolean prepared;
        final int number;
        final Map<String, PreparedStatement> statements = new HashMap<>();
        final List<String> out = new ArrayList<>();

        Session(String url, boolean prepared, int number) throws SQLException {
            connection = DriverManager.getConnection(url);
            this.prepared = prepared;
            this.number = number;
        }

        /** Runs sql with its question marks as parameters, or with the values in their places. */
        void run(String what, String keyed, String sql, Object... values) throws Exception {
            int keys = keyed == null ? Statement.NO_GENERATED_KEYS : Statement.RETURN_GENERATED_KEYS;
            STEP.await();
            try {
                if (prepared) {
                    PreparedStatement statement = statements.get(what);
                    if (statement == null) {
                        statement = connection.prepareStatement(HINT + sql, keys);
                        statements.put(what, statement);
                    }
                    for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
                    note(what, keyed, statement.executeUpdate(), statement);
                    return;
                }
                for (Object value : values) {
                    String literal = value instanceof String text ? "'" + text.replace("'", "''") + "'" : "" + value;
                    int place = sql.indexOf('?');
                    sql = sql.substring(0, place) + literal + sql.substring(place + 1);
                }
                try (Statement statement = connection.createStatement()) {
                    note(what, keyed, statement.executeUpdate(HINT + sql, keys), statement);
                }
            } catch (SQLException e) {
                out.add(number + "\t" + what + "\terror " + e.getSQLState() + " " + e.getErrorCode());
            }
        }

        void note(String what, String keyed, int count, Statement statement) throws SQLException {
            out.add(number + "\t" + what + "\t" + count);
            if (keyed == null) return;
            try (ResultSet keys = statement.getGeneratedKeys()) {
                while (keys.next()) out.add("key\t" + keyed + "\t" + keys.getLong(1));
            }
        }

        List<String> work(String table) throws Exception {
            String insert = "INSERT INTO " + table + " (tag, v, b) VALUES (?, ?, ?)";
            for (int n = 0; n < 12; n++) run("insert", null, insert, number + "-" + n, n, "it's \"" + n + "\" 漢字 🙂");
            for (int n = 12; n < 24; n++) run("keyed", number + "-" + n, insert, number + "-" + n, n, "keyed");
            String update = "UPDATE " + table + " SET v = v + ? WHERE tag = ?";
            for (int n = 0; n < 12; n++) run("update", null, update, 5, number + "-" + n);
            run("keyed again", number + "-24", insert, number + "-24", 24, "keyed");
            run("duplicate", null, insert, number + "-3", 3, "no");
            String delete = "DELETE FROM " + table + " WHERE tag = ?";
            for (int n = 0; n < 8; n++) run("delete", null, delete, number + "-" + n);
            connection.close();
            return out;
        }
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(SESSIONS);
        for (int i = 1; i < arguments.length; i += 2) {
            String table = arguments[i];
            List<Future<List<String>>> work = new ArrayList<>();
            for (int k = 0; k < SESSIONS; k++) {
                Session session = new Session(arguments[i + 1], arguments[0].equals("prepared"), k);
                work.add(threads.submit(() -> session.work(table)));
            }
            for (Future<List<String>> each : work) {
                for (String line : each.get()) System.out.println(table + "\t" + line);
            }
        }
        System.exit(0);
    }
}
