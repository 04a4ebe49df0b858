import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * One JVM that opens many connections, for tests/test_java.py. Standard input has a line for each:
 * "id TAB url TAB user TAB password TAB key=value;key=value". So has standard output: "id TAB 42", which the server was
 * asked for, or "id TAB error SQLSTATE code message".
 */
class Ask {
    static final int SECONDS = 60;

    static String ask(String[] words) {
        Properties properties = new Properties();
        properties.setProperty("user", words[2]);
        properties.setProperty("password", words[3]);
        for (String property : words.length > 4 ? words[4].split(";") : new String[0]) {
            String[] pair = property.split("=", 2);
            properties.setProperty(pair[0], pair[1]);
        }
        try (Connection connection = DriverManager.getConnection(words[1], properties);
                Statement statement = connection.createStatement();
                ResultSet result = statement.executeQuery("SELECT 42")) {
            result.next();
            return result.getString(1);
        } catch (SQLException e) {
            String message = e.getMessage() + (e.getCause() == null ? "" : " because of " + e.getCause());
            return "error " + e.getSQLState() + " " + e.getErrorCode() + " " + message.replaceAll("\\s+", " ");
        }
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] words = line.split("\t");
            String answer;
            try {
                answer = threads.submit(() -> ask(words)).get(SECONDS, TimeUnit.SECONDS);
            } catch (TimeoutException e) {
                answer = "error: no answer within " + SECONDS + " s";
            }
            System.out.println(words[0] + "\t" + answer);
            System.out.flush();
        }
        System.exit(0);
    }
}
