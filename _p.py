from tests.moment import *
for proto, ways in (("postgres","t t t! t! p p p! update update! delete"),("postgres","$t $t $t! $t! $p $p $p! $update $update! $delete"),("mariadb","t t t! t! p update delete")):
    m = Moment(proto, ways)
    m.write_all(); m.run()
    print(m.transactions(), m.alone()); print(m.news()); 
    m.finish()
